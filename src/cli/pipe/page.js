// Shows each line as it comes, and the end of the page as long as that is what is looked at.
const lines = document.getElementById('lines');
const most = 10000;

function show(text) {
  const page = document.documentElement;
  const follows = page.scrollTop + page.clientHeight > page.scrollHeight - 40;
  lines.append(text + '\n');
  while (lines.childNodes.length > most) lines.firstChild.remove();
  if (follows) page.scrollTop = page.scrollHeight;
}

const events = new EventSource(lines.dataset.path);
events.onmessage = event => show(event.data);
events.addEventListener('stream.gap', event => show(`… lines are missing (${JSON.parse(event.data).reason}) …`));
