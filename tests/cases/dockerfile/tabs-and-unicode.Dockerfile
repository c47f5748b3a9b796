FROM	alpine		AS	x
RUN	echo "日本"
	COPY	ä ö /ü
RUNxy
