package com.example.depot;

import java.awt.Color;
import java.awt.Graphics2D;
import java.awt.RenderingHints;
import java.awt.image.BufferedImage;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.util.List;
import javax.imageio.ImageIO;

/** A bar chart of the stock, drawn with Java 2D: the only thing here that loads the desktop module. */
final class Chart {
    private Chart() {}

    static byte[] png(List<Part> parts) throws IOException {
        BufferedImage image = new BufferedImage(240, 20 * parts.size(), BufferedImage.TYPE_INT_RGB);
        Graphics2D pen = image.createGraphics();
        pen.setRenderingHint(RenderingHints.KEY_ANTIALIASING, RenderingHints.VALUE_ANTIALIAS_ON);
        pen.setColor(Color.WHITE);
        pen.fillRect(0, 0, image.getWidth(), image.getHeight());
        pen.setColor(new Color(0x336699));
        for (int i = 0; i < parts.size(); i++) {
            pen.fillRoundRect(4, 20 * i + 3, Math.min(parts.get(i).stock(), 230), 14, 6, 6);
        }
        pen.dispose();
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        ImageIO.write(image, "png", bytes);
        return bytes.toByteArray();
    }
}
