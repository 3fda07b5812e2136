// The log of what was said, one paragraph a turn. Text only: nothing a model writes becomes markup.

const LOWEST_GAP_PX = 60;

function describe(turn) {
  if (turn.role !== "user" || !turn.isSpoken || turn.text) return null;
  return turn.durationMs > 0 ? `You spoke for ${(turn.durationMs / 1000).toFixed(1)} s` : "You spoke";
}

export class Captions {
  constructor(log) {
    this.log = log;
    this.paragraphs = new Map();
    this.isAtEnd = true;
    log.addEventListener("scroll", () => {
      this.isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < LOWEST_GAP_PX;
    });
    // A banner or the talk button takes room away: the newest line stays in view all the same.
    new ResizeObserver(() => this.follow()).observe(log);
  }

  follow() {
    if (this.isAtEnd) this.log.scrollTop = this.log.scrollHeight;
  }

  show(turn) {
    const paragraph = this.paragraphs.get(turn.id) ?? this.add(turn);
    const note = describe(turn) ?? (turn.isCut ? (turn.text ? " — interrupted" : "interrupted") : null);
    paragraph.replaceChildren(turn.text.trimStart());
    if (note) {
      const element = document.createElement("span");
      element.className = "note";
      element.textContent = note;
      paragraph.append(element);
    }
    // Busy paragraphs are read out when they are whole, not word by word.
    paragraph.setAttribute("aria-busy", String(turn.role === "assistant" && !turn.isDone));
    this.follow();
  }

  add(turn) {
    const paragraph = document.createElement("p");
    paragraph.className = `turn ${turn.role}`;
    paragraph.dataset.role = turn.role;
    this.paragraphs.set(turn.id, paragraph);
    this.log.append(paragraph);
    return paragraph;
  }

  clear() {
    for (const paragraph of this.paragraphs.values()) paragraph.remove();
    this.paragraphs.clear();
  }

  get isEmpty() {
    return this.paragraphs.size === 0;
  }
}
