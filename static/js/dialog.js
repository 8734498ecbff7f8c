// A <dialog data-modal> that arrives opens; when it closes it goes, and focus returns to what opened it.
const touch = matchMedia("(pointer: coarse)");

// An id, not an element: the row of the button may be replaced while the dialog is open.
let opener = null;

const open = (dialog) => {
  dialog.showModal();
  // On touch a focused field would bring up the keyboard at once.
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
  // The first thing to put right, after a 422.
  target.querySelector("[aria-invalid='true']")?.focus();
});

// `close` does not bubble, so it is caught on the way down.
document.addEventListener("close", ({ target }) => {
  if (!target.matches("dialog[data-modal]")) return;
  target.remove();
  returnFocus();
}, true);

// Sent by the server when a form has done its work, with the id that focus should go to.
document.addEventListener("dialog:close", ({ detail }) => {
  opener = detail?.focus ?? opener;
  const dialog = document.querySelector("dialog[data-modal][open]");
  if (dialog) dialog.close();
  else if (detail?.focus) returnFocus();
});
