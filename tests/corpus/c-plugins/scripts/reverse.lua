local words = require("words")

return function(text)
  return words.map(text, string.reverse)
end
