# frozen_string_literal: true

module Guestbook
  # The entries, in an SQLite database in memory that is filled from db/*.sql.
  class Entries
    def initialize(folder)
      @database = SQLite3::Database.new(":memory:", results_as_hash: true)
      Dir[File.join(folder, "*.sql")].sort.each { |script| @database.execute_batch(File.read(script)) }
      @lock = Mutex.new
    end

    def all
      @lock.synchronize { @database.execute("SELECT * FROM entry ORDER BY id") }
    end

    def find(id)
      @lock.synchronize { @database.get_first_row("SELECT * FROM entry WHERE id = ?", [id]) }
    end
  end
end
