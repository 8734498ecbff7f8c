// WebAuthn: passes the server's options to the browser and submits the credential. Binary fields are base64url.
const toBytes = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (one) => one.charCodeAt(0));

const toText = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer)))
  .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

const known = (list) => list?.map((one) => ({ ...one, id: toBytes(one.id) }));

const questionOf = ({ publicKey }) => ({
  ...publicKey,
  challenge: toBytes(publicKey.challenge),
  ...(publicKey.user && { user: { ...publicKey.user, id: toBytes(publicKey.user.id) } }),
  ...(publicKey.excludeCredentials && { excludeCredentials: known(publicKey.excludeCredentials) }),
  ...(publicKey.allowCredentials && { allowCredentials: known(publicKey.allowCredentials) }),
});

const PARTS = ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"];

const answerOf = (credential) => JSON.stringify({
  id: credential.id,
  rawId: toText(credential.rawId),
  type: credential.type,
  clientExtensionResults: credential.getClientExtensionResults(),
  response: Object.fromEntries(PARTS
    .filter((part) => credential.response[part])
    .map((part) => [part, toText(credential.response[part])])),
});

const ask = async (form) => {
  const publicKey = questionOf(JSON.parse(form.dataset.question));
  const failed = form.querySelector("[data-passkey-failed]");
  const button = form.querySelector("[type=submit]");
  failed.hidden = true;
  button.setAttribute("aria-disabled", "true");
  try {
    const credential = await navigator.credentials[form.dataset.passkey]({ publicKey });
    form.elements.passkey.value = answerOf(credential);
    form.submit();
  } catch {
    failed.hidden = false;
    button.removeAttribute("aria-disabled");
  }
};

document.addEventListener("submit", (event) => {
  const form = event.target.closest("[data-passkey]");
  if (!form) return;
  event.preventDefault();
  const isBusy = form.querySelector("[type=submit]").getAttribute("aria-disabled") === "true";
  if (!isBusy && form.checkValidity()) ask(form);
  else if (!isBusy) form.reportValidity();
});
