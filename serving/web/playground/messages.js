// What the page says: what went wrong and what it does about it, and news.

import { at, button } from "./elements.js";

/** @param {any} error a Refused, or null for nothing. @param {boolean} [hasKey] */
export function say(error, hasKey = false) {
  const asks = error?.status === 401 && !hasKey;
  const text = asks ? "Enter an API key." : (error?.message ?? "");
  at("message").hidden = !text;
  if (at("message").textContent !== text) at("message").textContent = text;
  at("message").className = asks ? "request" : "";
  if (error?.status !== 401) return;
  document.body.classList.add("locked");
  at("key-field").hidden = false;
  at("key").focus();
}

/** @param {string} text empty for none. @param {string} [action] @param {() => void} [act] */
export function tell(text, action, act) {
  at("notice").hidden = !text;
  at("notice").replaceChildren(text);
  if (action && act) at("notice").append(" ", button(action, act));
}

/** What is said while something is tried again. @param {any} error @param {number} seconds */
export const again = (error, seconds) => ({
  status: error.status,
  message: `${error.message} This page tries again in ${Math.max(1, Math.round(seconds))} s.`,
});
