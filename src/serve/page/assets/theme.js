// Runs before the first paint, so that nobody sees the other theme flash by.
(() => {
  const asked = new URLSearchParams(location.search).get('theme');
  let kept = null;
  try { kept = localStorage.getItem('theme'); } catch { /* storage is switched off: the system decides */ }
  const theme = [asked, kept].find((name) => name === 'dark' || name === 'light');
  const system = matchMedia('(prefers-color-scheme: light)').matches ? 'light' : 'dark';
  document.documentElement.dataset.theme = theme ?? system;
})();
