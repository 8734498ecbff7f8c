// Downloads an export with a progress bar and saves it only if it is complete. Without JavaScript its link works.
const LINE_FEED = 10;
const KEEP_BYTES = 16 * 1024 * 1024;
const TAIL_BYTES = 4096;

let running = null;

const part = (id) => document.getElementById(id);

const words = (name) => document.querySelector(`[data-export-words="${name}"]`).content.textContent;

const say = (name) => {
  part("export-status").textContent = words(name);
  if (name !== "started") part("export-words").textContent = words(name);
};

const show = (done, all) => {
  const number = new Intl.NumberFormat(document.documentElement.lang);
  const sofar = part("export-words").dataset.sofar;
  part("export-words").textContent = sofar.replace("{done}", number.format(done)).replace("{all}", number.format(all));
  Object.assign(part("export-bar"), { max: Math.max(all, 1), value: Math.min(done, all) });
};

const busy = (isBusy) => {
  part("export-progress").hidden = false;
  part("export-bar").hidden = !isBusy;
  document.querySelector("[data-export-cancel]").hidden = !isBusy;
  document.querySelector("[data-export-close]").hidden = isBusy;
};

const lines = (bytes) => {
  let found = 0;
  for (let at = bytes.indexOf(LINE_FEED); at >= 0; at = bytes.indexOf(LINE_FEED, at + 1)) found += 1;
  return found;
};

// Collect the chunks into Blobs: the browser can move a Blob from memory to disk, but not a Uint8Array.
const read = async (response, all) => {
  const reader = response.body.getReader();
  const blobs = [];
  let waiting = [], size = 0, done = -1;
  for (;;) {
    const { value, done: isEnd } = await reader.read();
    if (isEnd) return new Blob([...blobs, ...waiting], { type: "text/csv" });
    waiting.push(value);
    size += value.length;
    if (size > KEEP_BYTES) {
      blobs.push(new Blob(waiting));
      waiting = [];
      size = 0;
    }
    done += lines(value);
    show(Math.max(0, Math.min(done, all)), all);
  }
};

// A file without the line of sums at its end is incomplete.
const isWhole = async (blob, total) => {
  const tail = await blob.slice(-TAIL_BYTES).text();
  return tail.split("\r\n").at(-2)?.replace("\uFEFF", "").startsWith(`${total},`);
};

const nameIn = (disposition) => {
  const encoded = /filename\*=utf-8''([^;]+)/i.exec(disposition)?.[1];
  return encoded ? decodeURIComponent(encoded) : /filename="([^"]+)"/.exec(disposition)?.[1] ?? "export.csv";
};

const save = (blob, name) => {
  const url = URL.createObjectURL(blob);
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
};

const outcome = async (link, signal) => {
  const all = Number(document.getElementById("export").dataset.rows);
  show(0, all);
  const response = await fetch(link.href, { signal });
  if (!response.ok || response.redirected) return "failed";
  const blob = await read(response, all);
  if (!await isWhole(blob, part("export-progress").dataset.total)) return "failed";
  save(blob, nameIn(response.headers.get("Content-Disposition")));
  return "saved";
};

const run = async (link) => {
  running = new AbortController();
  const { signal } = running;
  busy(true);
  say("started");
  try {
    say(await outcome(link, signal));
  } catch {
    say(signal.aborted ? "cancelled" : "failed");
  }
  const hadFocus = document.activeElement?.matches("[data-export-cancel]");
  busy(false);
  if (hadFocus) document.querySelector("[data-export-close]").focus();
  running = null;
};

document.addEventListener("click", (event) => {
  const control = event.target.closest("[data-export], [data-export-cancel], [data-export-close]");
  if (!control) return;
  if (control.matches("[data-export-cancel]")) running?.abort();
  else if (control.matches("[data-export-close]")) {
    part("export-progress").hidden = true;
    part("export-csv").focus();
  } else if (!event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey) {
    event.preventDefault();
    const menu = control.closest("details");
    if (menu) menu.open = false;
    if (!running) run(control);
  }
});
