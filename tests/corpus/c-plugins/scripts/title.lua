local words = require("words")

return function(text)
  return words.map(text, function(word)
    return word:sub(1, 1):upper() .. word:sub(2):lower()
  end)
end
