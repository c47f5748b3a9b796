/* A Lua script of the configured folder, applied to the text. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "textmill.h"

int mill_run(const struct mill_request *request, struct mill_reply *reply)
{
    const char *folder = request->setting("folder");
    const char *name = request->argument ? request->argument : "title";
    if (!folder || strchr(name, '/')) {
        reply->text = strdup("no such script\n");
        return 404;
    }
    lua_State *lua = luaL_newstate();
    luaL_openlibs(lua);
    lua_getglobal(lua, "package");
    lua_pushfstring(lua, "%s/?.lua", folder);
    lua_setfield(lua, -2, "path");
    lua_pop(lua, 1);

    int status = 200;
    lua_getglobal(lua, "require");
    lua_pushstring(lua, name);
    if (lua_pcall(lua, 1, 1, 0) != LUA_OK) {
        status = 404;
    } else {
        lua_pushstring(lua, request->text);
        if (lua_pcall(lua, 1, 1, 0) != LUA_OK)
            status = 500;
    }
    const char *result = lua_tostring(lua, -1);
    if (asprintf(&reply->text, "%s\n", result ? result : "nothing") < 0)
        reply->text = NULL;
    lua_close(lua);
    return status;
}
