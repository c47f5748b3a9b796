package com.example.depot;

import java.security.KeyStore;
import java.util.Arrays;
import java.util.Map;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManager;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509TrustManager;

/** What this JVM's TLS trusts. */
final class Trust {
    private Trust() {}

    static Map<String, Object> summary() throws Exception {
        TrustManagerFactory factory = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        factory.init((KeyStore) null);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, factory.getTrustManagers(), null);
        X509TrustManager manager = null;
        for (TrustManager candidate : factory.getTrustManagers()) {
            if (candidate instanceof X509TrustManager found) {
                manager = found;
            }
        }
        boolean isrg = Arrays.stream(manager.getAcceptedIssuers())
                .anyMatch(authority -> authority.getSubjectX500Principal().getName().contains("ISRG Root X1"));
        return Map.of(
                "enough_authorities", manager.getAcceptedIssuers().length > 80,
                "isrg_root_x1", isrg,
                "tls13", Arrays.asList(context.getSupportedSSLParameters().getProtocols()).contains("TLSv1.3"));
    }
}
