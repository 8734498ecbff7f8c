// Opens each <dialog data-modal> that htmx inserts; removes it on close and returns focus to the button that opened it.
const touch = matchMedia("(pointer: coarse)");

// The id of the button, not the element: htmx may replace its row while the dialog is open.
let opener = null;

const open = (dialog) => {
  dialog.showModal();
  // Focus the heading on touch screens: a focused field would open the on-screen keyboard immediately.
  if (touch.matches && !dialog.querySelector("[aria-invalid]")) dialog.querySelector("h2")?.focus();
};

const returnFocus = () => {
  const target = document.getElementById(opener ?? "") ?? document.getElementById("main");
  target?.focus({ preventScroll: true });
  opener = null;
};

document.addEventListener("click", (event) => {
  const control = event.target.closest("button, a");
  if (!control) return;
  if (control.matches("[data-opens-dialog]")) opener = control.id;
  if (control.matches("[data-close]")) control.closest("dialog")?.close();
  if (control.matches("[aria-disabled='true']")) event.preventDefault();
});

document.addEventListener("htmx:load", ({ target }) => {
  if (target.matches("dialog[data-modal]:not([open])")) open(target);
  // Focus the first invalid field after a 422 response.
  target.querySelector("[aria-invalid='true']")?.focus();
});

// `close` does not bubble, so listen in the capture phase.
document.addEventListener("close", ({ target }) => {
  if (!target.matches("dialog[data-modal]")) return;
  target.remove();
  returnFocus();
}, true);

// The server triggers this event when a deed is done (HX-Trigger-After-Settle), with the id of the element to focus.
document.addEventListener("dialog:close", ({ detail }) => {
  opener = detail?.focus ?? opener;
  const dialog = document.querySelector("dialog[data-modal][open]");
  if (dialog) dialog.close();
  else if (detail?.focus) returnFocus();
});
