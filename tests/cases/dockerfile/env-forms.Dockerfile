FROM alpine
ENV OLD value with  blanks "and quotes"
ENV A=1 B="two words" C='single $A' D=esc\ aped E= \
    F=${A:-x} G=""
LABEL a.b=c "quoted key"="v=w" multi="x \
 y"
LABEL old style label
ENV X=a=b=c
ARG P=1 Q="a b" R
