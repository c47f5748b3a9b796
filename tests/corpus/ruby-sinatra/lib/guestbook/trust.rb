# frozen_string_literal: true

require "openssl"

module Guestbook
  # What the system's certificate authorities vouch for.
  module Trust
    def self.summary
      store = OpenSSL::X509::Store.new
      store.set_default_paths
      known = OpenSSL::X509::Certificate.new(
        File.read(File.join(OpenSSL::X509::DEFAULT_CERT_DIR, "ISRG_Root_X1.pem"))
      )
      { isrg_root_x1: store.verify(known), stranger: store.verify(stranger), openssl: OpenSSL::OPENSSL_LIBRARY_VERSION }
    end

    def self.stranger
      key = OpenSSL::PKey::EC.generate("prime256v1")
      certificate = OpenSSL::X509::Certificate.new
      certificate.serial = 1
      certificate.subject = certificate.issuer = OpenSSL::X509::Name.new([%w[CN localhost]])
      certificate.not_before = Time.now - 60
      certificate.not_after = Time.now + 3600
      certificate.public_key = key
      certificate.sign(key, "SHA256")
    end
  end
end
