'use strict'

const path = require('node:path')
const { Eta } = require('eta')
const polka = require('polka')
const pastes = require('./lib/pastes')
const status = require('./lib/status')

const eta = new Eta({ views: path.join(__dirname, 'templates'), cache: true })

function send (response, code, body, type = 'text/html; charset=utf-8') {
  response.writeHead(code, { 'content-type': type })
  response.end(body)
}

// polka leaves what a handler throws to the process
const guarded = (handler) => (request, response) => {
  try {
    handler(request, response)
  } catch (error) {
    send(response, error.status || 500, error.message, 'text/plain')
  }
}

const app = polka({
  onNoMatch: (request, response) => send(response, 404, eta.render('./missing', { path: request.path }))
})

app.get('/', guarded((request, response) => {
  send(response, 200, eta.render('./index', { pastes: pastes.all(request.query.zone) }))
}))

app.get('/status', (request, response) => send(response, 200, JSON.stringify(status()), 'application/json'))

app.get('/pastes/:id', guarded((request, response) => {
  const paste = pastes.get(request.params.id)
  if (!paste) return send(response, 404, eta.render('./missing', { path: request.path }))
  if (request.query.raw !== undefined) return send(response, 200, paste.text, 'text/plain; charset=utf-8')
  const { marked } = require('marked')
  send(response, 200, eta.render('./paste', { id: request.params.id, html: marked.parse(paste.text) }))
}))

const { server } = app.listen(Number(process.env.PORT || 3000))

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    server.closeAllConnections()
    server.close(() => process.exit(0))
  })
}
