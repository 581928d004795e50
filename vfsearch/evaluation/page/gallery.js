// Players: one voice at a time, its drawn shape fills as it is heard.
"use strict";

const players = [];

for (const voice of document.querySelectorAll(".voice")) {
  const audio = voice.querySelector("audio");
  const button = voice.querySelector("button");
  const bars = [...voice.querySelectorAll("rect")];
  // Without this script the browser's own controls stay.
  audio.hidden = true;
  audio.removeAttribute("controls");
  button.hidden = false;

  const draw = () => {
    const share = audio.duration ? audio.currentTime / audio.duration : 0;
    bars.forEach((bar, i) => bar.classList.toggle("heard", i < share * bars.length));
  };
  let frame = 0;
  const follow = () => {
    draw();
    frame = requestAnimationFrame(follow);
  };
  const rest = () => {
    cancelAnimationFrame(frame);
    button.classList.remove("playing");
    button.setAttribute("aria-label", `Play ${button.dataset.label}`);
    draw();
  };
  const stop = () => {
    audio.pause();
    audio.currentTime = 0;
  };

  audio.addEventListener("play", () => {
    for (const other of players) if (other.audio !== audio) other.stop();
    button.classList.add("playing");
    button.setAttribute("aria-label", `Pause ${button.dataset.label}`);
    cancelAnimationFrame(frame);
    follow();
  });
  audio.addEventListener("pause", rest);
  audio.addEventListener("seeked", draw);
  audio.addEventListener("ended", () => {
    audio.currentTime = 0;
    rest();
  });
  button.addEventListener("click", () => (audio.paused ? audio.play() : audio.pause()));
  players.push({ audio, stop });
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") for (const player of players) player.stop();
});
