// A page that is opened from disk may not start a Worker, which the site's search needs. There, run
// the worker's script in a hidden frame of the page instead. From a server, browsers start a Worker.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(url) {
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.append(this.frame)
      const inside = this.frame.contentWindow
      // Messages are copies that arrive later, as those of a Worker.
      const send = (to, data) => {
        const copy = structuredClone(data)
        setTimeout(() => to.onmessage?.({ data: copy }))
      }
      inside.postMessage = data => send(this, data)
      const script = inside.document.createElement("script")
      const loaded = new Promise((resolve, reject) => {
        script.onload = resolve
        script.onerror = reject
      })
      this.postMessage = data => loaded.then(() => send(inside, data), event => this.onerror?.(event))
      script.src = new URL(url, location.href).href
      inside.document.body.append(script)
    }
    terminate() {
      this.frame.remove()
    }
  }
}
