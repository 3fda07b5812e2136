// A camera track -> JPEG frames, for the transport that sends pictures as events (socket.js).

const PERIOD_MS = 500; // the model looks twice a second
const LONGEST_SIDE_PX = 640;
const QUALITY = 0.8;

export class Frames {
  /** @param {(jpeg: ArrayBuffer) => void} onFrame about twice a second while a track is attached */
  constructor(onFrame) {
    this.onFrame = onFrame;
    this.canvas = document.createElement("canvas");
    this.video = null;
    this.timer = null;
  }

  attach(track) {
    this.close();
    if (!track) return;
    this.video = document.createElement("video");
    this.video.muted = this.video.playsInline = true;
    this.video.srcObject = new MediaStream([track]);
    this.video.play().catch(() => {
      // closed before it began
    });
    this.video.onloadeddata = () => this.grab();
    this.timer = setInterval(() => this.grab(), PERIOD_MS);
  }

  grab() {
    const { video, canvas } = this;
    if (!video || video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return;
    const scale = Math.min(1, LONGEST_SIDE_PX / Math.max(video.videoWidth, video.videoHeight));
    canvas.width = Math.round(video.videoWidth * scale);
    canvas.height = Math.round(video.videoHeight * scale);
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
    canvas.toBlob(
      async (blob) => {
        const jpeg = await blob?.arrayBuffer();
        if (jpeg && this.video === video) this.onFrame(jpeg);
      },
      "image/jpeg",
      QUALITY,
    );
  }

  close() {
    clearInterval(this.timer);
    if (this.video) this.video.srcObject = null;
    this.video = null;
  }
}
