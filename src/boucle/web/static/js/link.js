// The one live socket of a page: reconnects with backoff, acknowledges frames, knows how old they are.
import { decode } from "./frames.js";

const LOST_AFTER_MS = 2000;
const SLOWEST_RETRY_MS = 5000;

export class Link {
  #path; #onFrame; #last = performance.now(); #retry = 500; #notice;

  constructor(path, onFrame) {
    this.#path = path;
    this.#onFrame = onFrame;
    this.#notice = document.getElementById("lost");
    setInterval(() => this.#watch(), 500);
    if (path) this.#open();
  }

  /** Something came from the loop, by whichever way. */
  alive() {
    this.#last = performance.now();
    this.#watch();
  }

  #open() {
    const address = new URL(this.#path, location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(address);
    socket.binaryType = "arraybuffer";
    socket.onmessage = (message) => {
      const frame = decode(message.data);
      socket.send(String(frame.seq));
      this.#retry = 500;
      this.alive();
      this.#onFrame(frame);
    };
    socket.onclose = (event) => {
      if (event.code === 4404) return;
      setTimeout(() => this.#open(), this.#retry);
      this.#retry = Math.min(this.#retry * 2, SLOWEST_RETRY_MS);
    };
  }

  #watch() {
    const silent = performance.now() - this.#last;
    const lost = silent > LOST_AFTER_MS;
    if (lost) {
      const says = this.#notice.dataset.says.replace("{seconds}", Math.floor(silent / 1000));
      if (this.#notice.textContent !== says) this.#notice.textContent = says;
    }
    this.#notice.hidden = !lost;
    document.body.classList.toggle("link-lost", lost);
  }
}
