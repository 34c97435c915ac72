// What pages do beside htmx: times in the reader's own zone, and whether the page is live.
"use strict";

(() => {
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const pad = (number, width = 2) => String(number).padStart(width, "0");

  function age(milliseconds) {
    const seconds = Math.round(Math.abs(milliseconds) / 1000);
    const unit = units.find(([size]) => seconds >= size);
    if (!unit) return "now";
    const amount = `${Math.floor(seconds / unit[0])} ${unit[1]}`;
    return milliseconds > 0 ? `${amount} ago` : `in ${amount}`;
  }

  function shown(element, now) {
    const moment = new Date(element.dateTime);
    if (Number.isNaN(moment.getTime())) return element.textContent;
    const clock = `${pad(moment.getHours())}:${pad(moment.getMinutes())}:${pad(moment.getSeconds())}`;
    switch (element.dataset.show) {
      case "age": return age(now - moment.getTime());
      case "clock": return `${clock}.${pad(moment.getMilliseconds(), 3)}`;
      default: return `${moment.getFullYear()}-${pad(moment.getMonth() + 1)}-${pad(moment.getDate())} ${clock}`;
    }
  }

  function showTimes(root) {
    const now = Date.now();
    for (const element of root.querySelectorAll("time[data-show]")) {
      const text = shown(element, now);
      if (element.textContent !== text) element.textContent = text;
    }
  }

  function connection(state, words) {
    const element = document.getElementById("connection");
    if (!element || element.dataset.state === state) return;
    element.dataset.state = state;
    element.textContent = words;
  }

  document.addEventListener("htmx:sse:after:connection", () => connection("live", "Live"));
  document.addEventListener("htmx:sse:error", () => connection("lost", "Reconnecting…"));
  document.addEventListener("htmx:sse:before:connection", (event) => {
    if (event.detail.connection.attempt > 0) connection("lost", "Reconnecting…");
  });
  document.addEventListener("htmx:sse:after:message", () => showTimes(document));
  document.addEventListener("DOMContentLoaded", () => {
    showTimes(document);
    setInterval(() => { if (!document.hidden) showTimes(document); }, 1000);
  });
})();
