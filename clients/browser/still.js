// One picture of a camera at its full resolution, as a JPEG that fits into one event. What the model asks for it
// with is `stillTool`, a function like any other: whoever declares it in a session, this page answers its calls.

const MAX_PIXELS = 4 << 20; // more is refused by the server
const QUALITIES = [0.92, 0.8, 0.65, 0.5];
const SMALLER = 0.8; // of each side, where no quality fits

export const stillTool = {
  type: "function",
  name: "take_still",
  description:
    "Take one sharp picture with the user's camera at its full resolution, to read small print or to see details. The picture follows as a message.",
  parameters: { type: "object", properties: {} },
};

/** A photo by the camera itself, which may be sharper than its video; else a frame as large as it gives one. */
async function photograph(track) {
  try {
    return await createImageBitmap(await new ImageCapture(track).takePhoto());
  } catch {
    return grab(track); // a browser or a camera that takes none
  }
}

async function grab(track) {
  const large = track.clone();
  const video = document.createElement("video");
  try {
    const { width, height } = large.getCapabilities?.() ?? {};
    if (width?.max) await large.applyConstraints({ width: { ideal: width.max }, height: { ideal: height.max } });
    video.muted = video.playsInline = true;
    video.srcObject = new MediaStream([large]);
    await video.play();
    return await createImageBitmap(video);
  } finally {
    video.srcObject = null;
    large.stop();
  }
}

function toDataUri(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

/** {uri, width, height}; `maxChars`: of the data URI. */
export async function takeStill(track, maxChars) {
  const photo = await photograph(track);
  const canvas = document.createElement("canvas");
  let scale = Math.min(1, Math.sqrt(MAX_PIXELS / (photo.width * photo.height)));
  for (;;) {
    canvas.width = Math.floor(photo.width * scale);
    canvas.height = Math.floor(photo.height * scale);
    canvas.getContext("2d").drawImage(photo, 0, 0, canvas.width, canvas.height);
    for (const quality of QUALITIES) {
      const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", quality));
      const uri = await toDataUri(blob);
      if (uri.length <= maxChars) return { uri, width: canvas.width, height: canvas.height };
    }
    scale *= SMALLER;
  }
}
