// Reads a G-code program from standard input by gcode-toolpath; writes its moves as JSON, in mm.
'use strict'

const { readFileSync } = require('node:fs')
const { createRequire } = require('node:module')

// The folder that npm installed into is the first argument.
const Toolpath = createRequire(`${process.argv[2]}/`)('gcode-toolpath')
const moves = []
const spot = ({ x, y, z }) => [x, y, z]
const toolpath = new Toolpath({
  addLine: (modal, start, end) => moves.push({ motion: modal.motion, start: spot(start), end: spot(end) }),
  addArcCurve: (modal, start, end, centre) =>
    moves.push({ motion: modal.motion, plane: modal.plane, start: spot(start), end: spot(end), centre: spot(centre) }),
})
toolpath.loadFromStringSync(readFileSync(0, 'utf8'))
process.stdout.write(JSON.stringify(moves))
