'use strict'

const path = require('node:path')
const plugin = require('fastify-plugin')
const sharp = require('sharp')

const colours = ['#b58900', '#cb4b16', '#dc322f', '#6c71c4', '#268bd2', '#2aa198']

function drawing (name, size) {
  const colour = colours[[...name].reduce((sum, letter) => sum + letter.charCodeAt(0), 0) % colours.length]
  return Buffer.from(
    `<svg xmlns="http://www.w3.org/2000/svg" width="${size}" height="${size}">` +
    `<rect width="100%" height="100%" fill="${colour}"/><circle cx="50%" cy="38%" r="20%" fill="#fff"/>` +
    '<ellipse cx="50%" cy="100%" rx="38%" ry="36%" fill="#fff"/></svg>'
  )
}

module.exports = plugin(async function avatars (fastify) {
  const schema = {
    params: { type: 'object', properties: { name: { type: 'string', pattern: '^[a-z]+$' } } },
    querystring: { type: 'object', properties: { size: { type: 'integer', minimum: 16, maximum: 512, default: 64 } } }
  }

  for (const format of ['png', 'webp']) {
    fastify.get(`/avatars/:name.${format}`, { schema }, async (request, reply) => {
      const image = sharp(drawing(request.params.name, request.query.size))
      return reply.type(`image/${format}`).send(await image[format]().toBuffer())
    })
  }

  // What a picture says of itself; the reader is loaded with the first question.
  fastify.get('/avatars/:name/about', { schema }, async (request) => {
    const { default: readExif } = await import('exif-reader')
    const stored = await sharp(drawing(request.params.name, request.query.size))
      .withExif({ IFD0: { Copyright: 'the avatar service', ImageDescription: request.params.name } })
      .jpeg()
      .toBuffer()
    const { exif, ...facts } = await sharp(stored).metadata()
    const tags = readExif(exif)
    const { dominant } = await sharp(stored).stats()
    return { format: facts.format, width: facts.width, description: tags.Image.ImageDescription, dominant }
  })

  fastify.register(require('@fastify/static'), { root: path.join(__dirname, '..', 'templates'), prefix: '/assets/', index: false })
})
