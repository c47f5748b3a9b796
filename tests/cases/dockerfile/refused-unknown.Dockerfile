FROM alpine

  RUNN true
