// Plays a video's playlist: with hls.js and its worker from this origin, or with the browser's own HLS where it has no MSE.
"use strict";

(() => {
  function start(video) {
    if (video.dataset.started) return;
    video.dataset.started = "yes";
    const output = document.getElementById("level");
    const history = document.getElementById("level-changes");
    let changes = 0;
    const show = (text) => { if (output) output.textContent = text; };

    if (!window.Hls || !window.Hls.isSupported()) {
      if (video.canPlayType("application/vnd.apple.mpegurl")) {
        video.src = video.dataset.playlist;
        show("chosen by the browser");
      } else {
        show("this browser plays no HLS");
      }
      return;
    }
    const hls = new window.Hls({ workerPath: video.dataset.worker, enableWorker: true, capLevelToPlayerSize: false });
    hls.on(window.Hls.Events.LEVEL_SWITCHED, (_name, data) => {
      const level = hls.levels[data.level];
      video.dataset.level = String(data.level);
      show(`${level.width} × ${level.height}, ${Math.round(level.bitrate / 1000)} kbit/s`);
      if (history) history.textContent = changes === 1 ? "1 change" : `${changes} changes`;
      changes += 1;
    });
    hls.on(window.Hls.Events.ERROR, (_name, data) => {
      if (!data.fatal) return;
      if (data.type === window.Hls.ErrorTypes.NETWORK_ERROR) hls.startLoad();
      else if (data.type === window.Hls.ErrorTypes.MEDIA_ERROR) hls.recoverMediaError();
      else show(`it cannot be played: ${data.details}`);
    });
    hls.loadSource(video.dataset.playlist);
    hls.attachMedia(video);
    window.mainstemPlayer = hls;
  }

  function look() {
    for (const video of document.querySelectorAll("video[data-playlist]")) start(video);
  }
  document.addEventListener("DOMContentLoaded", look);
  document.addEventListener("htmx:sse:after:message", look);
})();
