FROM python
RUN <<EOT
#!/usr/bin/env python
print("hello")
EOT
RUN python3 <<EOT > /out
print(1)
EOT
