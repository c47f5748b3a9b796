# frozen_string_literal: true

require "etc"
require "json"
require_relative "entries"

module Guestbook
  ROOT = File.expand_path("../..", __dir__)

  # A hut's guest book over HTTP.
  class App < Sinatra::Base
    set :root, ROOT
    set :show_exceptions, false
    set :entries, Entries.new(File.join(ROOT, "db"))

    helpers do
      def local(entry)
        zone = TZInfo::Timezone.get(params.fetch("tz", "Europe/Oslo"))
        zone.utc_to_local(Time.iso8601(entry["written"])).strftime("%Y-%m-%d %H:%M %Z")
      end

      def answer(body, code = 200)
        content_type :json
        halt code, JSON.generate(body)
      end

      def entry
        settings.entries.find(params[:id].to_i) || answer({ error: "no such entry" }, 404)
      end
    end

    error TZInfo::InvalidTimezoneIdentifier do
      answer({ error: "no such time zone" }, 400)
    end

    not_found do
      answer({ error: "nothing at #{request.path_info}" }, 404) unless content_type == "application/json"
    end

    get "/" do
      erb :index, locals: { entries: settings.entries.all }
    end

    get "/entries/:id" do
      found = entry
      answer(found.slice("id", "name", "text").merge(local: local(found)))
    end

    # The entry's address as a QR code, by the native extension quickmark.
    get "/entries/:id/code.svg" do
      require "quickmark"
      content_type "image/svg+xml"
      Quickmark.svg("https://guestbook.example.com/entries/#{entry['id']}")
    end

    get "/rules" do
      require "kramdown"
      Kramdown::Document.new(File.read(File.join(ROOT, "docs", "rules.md"))).to_html
    end

    get "/about" do
      require_relative "trust"
      user = Etc.getpwuid
      answer(Trust.summary.merge(user: user.name, home: user.dir, sqlite: SQLite3::SQLITE_VERSION))
    end

    get "/password/:word" do
      hash = BCrypt::Password.create(params[:word], cost: 4)
      answer(right: hash == params[:word], wrong: hash == "#{params[:word]}!")
    end
  end
end
