# escape=`
# check=skip=all
FROM mcr.microsoft.com/windows/servercore AS Build
WORKDIR C:\app
COPY a.txt `
     C:\app\
RUN powershell -Command `
    # in between
    Write-Host `"hi`"
ENV A=b` c D="e`"f"
