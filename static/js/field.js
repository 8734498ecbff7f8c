// Show/hide buttons of password fields, and copy buttons.
const reveal = (button) => {
  const input = document.getElementById(button.dataset.reveal);
  const show = input.type === "password";
  input.type = show ? "text" : "password";
  button.setAttribute("aria-pressed", String(show));
};

const copy = async (button) => {
  const lines = document.getElementById(button.dataset.copy).querySelectorAll("[data-line]");
  await write([...lines].map((line) => line.textContent).join("\n"));
  const label = button.querySelector("[data-label]");
  const before = label.textContent;
  label.textContent = button.dataset.done;
  setTimeout(() => { label.textContent = before; }, 1600);
};

// navigator.clipboard exists in secure contexts (HTTPS, localhost) only; otherwise copy from an invisible textarea.
const write = async (text) => {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = Object.assign(document.createElement("textarea"), { value: text, className: "sr" });
  const place = document.querySelector("dialog[open]") ?? document.body;
  const focused = document.activeElement;
  place.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
  focused?.focus();
};

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-reveal], [data-copy]");
  if (!button) return;
  if (button.matches("[data-reveal]")) reveal(button);
  else copy(button);
});
