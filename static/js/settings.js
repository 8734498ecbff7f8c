// Time zones: a search field filters the list, and the browser's zone is preselected if none was chosen.
const fold = (text) => text.toLowerCase().replaceAll("_", " ");

const narrow = (select, sought) => {
  for (const option of select.options) option.hidden = !fold(option.text).includes(fold(sought));
  for (const group of select.querySelectorAll("optgroup")) {
    group.hidden = !group.querySelector("option:not([hidden])");
  }
  const chosen = select.selectedOptions[0];
  const first = [...select.options].find((option) => !option.hidden);
  if (sought && chosen?.hidden && first) select.value = first.value;
};

document.addEventListener("input", ({ target }) => {
  if (target.matches("[data-narrows]")) narrow(document.getElementById(target.dataset.narrows), target.value.trim());
});

const guess = (select) => {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const isListed = [...select.options].some((option) => option.value === zone);
  if (select.value || !isListed) return;
  select.value = zone;
  document.querySelector("[data-zone-guessed]").hidden = false;
};

const zones = document.querySelector("[data-zone] select");
if (zones && !zones.matches("[aria-invalid]")) guess(zones);
