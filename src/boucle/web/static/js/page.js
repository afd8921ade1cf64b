// What starts on every page: the live link, the figures, the announcement of new alarms.
import { Link } from "./link.js";
import { showMachine } from "./plots.js";

const { live, language } = document.body.dataset;

/** Pixels of the widest plot on this page, so that the server sends no more than can be seen. */
function width() {
  const homes = [...document.querySelectorAll(".plots")].map((home) => home.clientWidth);
  return Math.round(Math.max(300, ...homes) * (devicePixelRatio || 1));
}

const path = live ? `${live}?width=${width()}&lang=${language}` : "";
const single = live !== "/live";
const link = new Link(path, (frame) => frame.machines.forEach((machine) => showMachine(machine, single, frame.speed)));

// Alarms that were there when the page came up are read with the page; only new ones are announced.
const alarms = () => [...document.querySelectorAll("[data-alarm]")];
const known = new Set(alarms().map((row) => row.dataset.alarm));

function announce() {
  const fresh = alarms().filter((row) => !known.has(row.dataset.alarm));
  fresh.forEach((row) => known.add(row.dataset.alarm));
  if (fresh.length) {
    document.getElementById("announce").textContent = fresh
      .map((row) => (row.querySelector("p, .says") ?? row).textContent.trim())
      .join(" ");
  }
}

document.addEventListener("htmx:after:swap", () => {
  if (!live) link.alive();
  announce();
});
