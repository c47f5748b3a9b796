# syntax=docker/dockerfile:1.7
ARG NODE_VERSION=18

################################################################################
# Dependencies
FROM node:${NODE_VERSION}-bookworm AS deps
WORKDIR /usr/src/app
RUN --mount=type=bind,source=package.json,target=package.json \
    --mount=type=bind,source=package-lock.json,target=package-lock.json \
    --mount=type=cache,target=/root/.npm \
    npm ci --omit=dev

FROM deps AS build
RUN --mount=type=cache,target=/root/.npm npm ci
COPY . .
RUN npm run build

FROM node:${NODE_VERSION}-slim AS final
ENV NODE_ENV=production
USER node
COPY --chown=node:node package.json .
COPY --from=deps /usr/src/app/node_modules ./node_modules
COPY --from=build /usr/src/app/dist ./dist
EXPOSE 3000
CMD npm start
