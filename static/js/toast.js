// Times out and dismisses the server's toasts, and clones one from a <template> when a request fails.
const SHORT_MS = 6000;
const WITH_ACTION_MS = 12000;
const AT_ONCE = 3;

// The element whose request failed last, for the Retry button.
let failed = null;

const arm = (toast) => {
  const patience = toast.querySelector("form, [data-retry], [data-reload]") ? WITH_ACTION_MS : SHORT_MS;
  let timer;
  const stop = () => clearTimeout(timer);
  const start = () => {
    stop();
    timer = setTimeout(() => {
      // An open dialog covers the toast, so restart its timer.
      if (document.querySelector("dialog[open]") && !toast.closest("dialog")) start();
      else toast.remove();
    }, patience);
  };
  toast.addEventListener("pointerenter", stop);
  toast.addEventListener("pointerleave", start);
  toast.addEventListener("focusin", (event) => {
    stop();
    if (!toast.contains(event.relatedTarget)) toast.cameFrom = event.relatedTarget?.id;
  });
  toast.addEventListener("focusout", start);
  start();
  while (toast.parentElement.childElementCount > AT_ONCE) toast.parentElement.firstElementChild.remove();
};

const dismiss = (toast) => {
  const hadFocus = toast.contains(document.activeElement);
  const back = document.getElementById(toast.cameFrom ?? "") ?? document.getElementById("main");
  toast.remove();
  if (hadFocus) back?.focus({ preventScroll: true });
};

const say = (id) => {
  // Everything outside of a modal dialog is inert, so the dialog has a toast container of its own.
  const place = document.querySelector("dialog[open] .toasts") ?? document.getElementById("toasts");
  const toast = document.getElementById(id).content.firstElementChild.cloneNode(true);
  place.replaceChildren(toast);
  arm(toast);
};

const retry = () => {
  if (!failed?.isConnected) location.reload();
  else if (failed.matches("form")) failed.requestSubmit();
  else failed.click();
};

document.addEventListener("htmx:load", ({ target }) => {
  if (target.matches(".toast")) arm(target);
  else target.querySelectorAll(".toast").forEach(arm);
});

// Polling: the next request follows anyway, and no user waits for this one.
const isQuiet = ({ elt }) => elt.matches("[data-quiet]");

document.addEventListener("htmx:responseError", ({ detail }) => {
  if (isQuiet(detail)) return;
  failed = detail.elt;
  const { status } = detail.xhr;
  say({ 403: "toast-forbidden", 404: "toast-gone" }[status] ?? "toast-failed");
});

for (const name of ["htmx:sendError", "htmx:timeout"]) {
  document.addEventListener(name, ({ detail }) => {
    if (isQuiet(detail)) return;
    failed = detail.elt;
    say("toast-offline");
  });
}

// Dismiss the toast after its Undo has succeeded.
document.addEventListener("htmx:afterRequest", ({ target, detail }) => {
  const toast = target.closest(".toast");
  if (toast && detail.successful) dismiss(toast);
});

document.addEventListener("click", ({ target }) => {
  const button = target.closest("[data-dismiss], [data-retry], [data-reload]");
  if (!button) return;
  if (button.matches("[data-reload]")) location.reload();
  dismiss(button.closest(".toast"));
  if (button.matches("[data-retry]")) retry();
});
