"use strict";

// The harmonic analysis is a Python program; it answers in JSON, and with status 3 for what it does not have.
const { execFile } = require("node:child_process");
const path = require("node:path");

const program = path.join(__dirname, "..", "harmonics", "harmonics.py");

class Missing extends Error {}

function harmonics(parameters) {
  return new Promise((resolve, reject) => {
    execFile("python3", [program, ...parameters], { timeout: 10_000 }, (error, stdout, stderr) => {
      if (error?.code === 3) reject(new Missing(stderr.trim()));
      else if (error) reject(error);
      else resolve(JSON.parse(stdout));
    });
  });
}

module.exports = { harmonics, Missing };
