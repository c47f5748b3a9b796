FROM alpine
RUN true && cat <<< word
RUN ["echo", "<<EOF"]
CMD cat <<EOF
RUN echo "<<EOF"
RUN echo \<<EOF
