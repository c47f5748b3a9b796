'use strict'

const os = require('node:os')
const tls = require('node:tls')
const plugin = require('fastify-plugin')
const sharp = require('sharp')

module.exports = plugin(async function status (fastify) {
  fastify.get('/', async (request, reply) => {
    const zone = request.query.zone || 'Etc/UTC'
    const started = new Intl.DateTimeFormat('en-GB', { timeZone: zone, dateStyle: 'full', timeStyle: 'short' })
    return reply.view('status.hbs', {
      user: os.userInfo().username,
      formats: ['jpeg', 'png', 'webp', 'avif'].filter((name) => sharp.format[name === 'avif' ? 'heif' : name].output.buffer),
      millennium: started.format(new Date('2000-01-01T00:00:00Z')),
      secure: Boolean(tls.createSecureContext({ ca: tls.rootCertificates }).context)
    })
  })
})
