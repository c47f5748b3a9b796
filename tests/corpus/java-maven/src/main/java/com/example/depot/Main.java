package com.example.depot;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import com.fasterxml.jackson.datatype.jsr310.JavaTimeModule;
import com.sun.security.auth.module.UnixSystem;
import io.javalin.Javalin;
import io.javalin.http.Context;
import io.javalin.http.NotFoundResponse;
import io.javalin.json.JavalinJackson;
import java.text.NumberFormat;
import java.time.DateTimeException;
import java.time.ZoneId;
import java.time.format.DateTimeFormatter;
import java.time.format.FormatStyle;
import java.util.Locale;
import java.util.Map;
import org.thymeleaf.TemplateEngine;
import org.thymeleaf.templateresolver.ClassLoaderTemplateResolver;

/** A depot of spare parts over HTTP. */
public final class Main {
    private final Store store;
    private final TemplateEngine pages = new TemplateEngine();

    private Main(Store store) {
        this.store = store;
        ClassLoaderTemplateResolver resolver = new ClassLoaderTemplateResolver();
        resolver.setPrefix("/templates/");
        resolver.setSuffix(".html");
        pages.setTemplateResolver(resolver);
    }

    static Javalin create(Store store) {
        Main depot = new Main(store);
        ObjectMapper mapper = new ObjectMapper()
                .registerModule(new JavaTimeModule())
                .disable(SerializationFeature.WRITE_DATES_AS_TIMESTAMPS);
        Javalin app = Javalin.create(config -> {
            config.jsonMapper(new JavalinJackson(mapper, false));
            config.showJavalinBanner = false;
        });
        app.get("/", depot::page);
        app.get("/parts/{id}", depot::part);
        app.get("/parts/{id}/counted", depot::counted);
        app.get("/stock.png", ctx -> ctx.contentType("image/png").result(Chart.png(store.all())));
        app.get("/trust", ctx -> ctx.json(Trust.summary()));
        app.get("/about", depot::about);
        app.error(404, ctx -> ctx.json(Map.of("error", "nothing at " + ctx.path())));
        return app;
    }

    private void page(Context ctx) throws Exception {
        var variables = new org.thymeleaf.context.Context(Locale.ENGLISH, Map.of("parts", store.all()));
        ctx.html(pages.process("parts", variables));
    }

    private Part find(Context ctx) throws Exception {
        long id = ctx.pathParamAsClass("id", Long.class).get();
        return store.find(id).orElseThrow(() -> new NotFoundResponse("no such part"));
    }

    private void part(Context ctx) throws Exception {
        ctx.json(find(ctx));
    }

    /** When a part was last counted, as somebody in ?tz= and ?lang= would write it. */
    private void counted(Context ctx) throws Exception {
        Locale locale = Locale.forLanguageTag(ctx.queryParamAsClass("lang", String.class).getOrDefault("en"));
        try {
            ZoneId zone = ZoneId.of(ctx.queryParamAsClass("tz", String.class).getOrDefault("UTC"));
            var format = DateTimeFormatter.ofLocalizedDateTime(FormatStyle.FULL).withLocale(locale);
            ctx.result(format.format(find(ctx).counted().atZone(zone)));
        } catch (DateTimeException e) {
            ctx.status(400).result(e.getMessage());
        }
    }

    private void about(Context ctx) throws Exception {
        ctx.json(Map.of(
                "user", new UnixSystem().getUsername(),
                "home", System.getProperty("user.home"),
                "sqlite", store.version(),
                "in_german", NumberFormat.getCurrencyInstance(Locale.GERMANY).format(1234.5)));
    }

    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(System.getenv().getOrDefault("PORT", "18142"));
        Store store = new Store();
        Javalin app = create(store);
        Runtime.getRuntime().addShutdownHook(new Thread(app::stop));
        app.start(port);
    }
}
