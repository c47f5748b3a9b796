# frozen_string_literal: true

port ENV.fetch("PORT", 18144)
threads 1, 4
preload_app!
