//! The pages.

use std::{collections::HashMap, error::Error, fs, path::Path, sync::Arc};

use axum::{
    extract::{Path as UrlPath, Query, State},
    http::StatusCode,
    response::{Html, IntoResponse, Response},
    routing::get,
    Json, Router,
};
use jiff::{tz::TimeZone, Timestamp};
use minijinja::{context, path_loader, Environment};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tower_http::{compression::CompressionLayer, services::ServeDir};

use crate::trust;

#[derive(Deserialize)]
struct Notice {
    id: u32,
    title: String,
    at: Timestamp,
    text: String,
}

#[derive(Serialize)]
struct Shown<'a> {
    id: u32,
    title: &'a str,
    local: String,
    text: &'a str,
}

struct Board {
    notices: Vec<Notice>,
    pages: Environment<'static>,
}

type Failure = (StatusCode, Json<serde_json::Value>);

fn failure(status: StatusCode, what: impl ToString) -> Failure {
    (status, Json(json!({ "error": what.to_string() })))
}

fn broken(what: impl ToString) -> Failure {
    failure(StatusCode::INTERNAL_SERVER_ERROR, what)
}

/// The application over `folder`, which holds `notices.json`, `templates` and `public`.
pub fn routes(folder: &Path) -> Result<Router, Box<dyn Error>> {
    let mut pages = Environment::new();
    pages.set_loader(path_loader(folder.join("templates")));
    let notices = serde_json::from_slice(&fs::read(folder.join("notices.json"))?)?;
    Ok(Router::new()
        .route("/", get(front))
        .route("/healthz", get(|| async { "ok" }))
        .route("/notices/{id}", get(one))
        .route("/trust", get(trusted))
        .route("/digest/{algorithm}/{text}", get(digest))
        .route("/users/{name}", get(user))
        .nest_service("/static", ServeDir::new(folder.join("public")))
        .fallback(|| async { failure(StatusCode::NOT_FOUND, "no such page") })
        .layer(CompressionLayer::new())
        .with_state(Arc::new(Board { notices, pages })))
}

fn zone_of(query: &HashMap<String, String>) -> Result<TimeZone, Failure> {
    let name = query.get("tz").map_or("Europe/Oslo", String::as_str);
    TimeZone::get(name).map_err(|error| failure(StatusCode::BAD_REQUEST, error))
}

fn show<'a>(notice: &'a Notice, zone: &TimeZone) -> Shown<'a> {
    let local = notice.at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M %Z").to_string();
    Shown { id: notice.id, title: &notice.title, local, text: &notice.text }
}

async fn front(
    State(board): State<Arc<Board>>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Html<String>, Failure> {
    let zone = zone_of(&query)?;
    let notices: Vec<_> = board.notices.iter().map(|notice| show(notice, &zone)).collect();
    let page = board.pages.get_template("board.html").map_err(broken)?;
    let name = zone.iana_name().unwrap_or("an unnamed zone");
    page.render(context! { notices, zone => name }).map(Html).map_err(broken)
}

async fn one(
    State(board): State<Arc<Board>>,
    UrlPath(id): UrlPath<u32>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, Failure> {
    let zone = zone_of(&query)?;
    let found = board.notices.iter().find(|notice| notice.id == id);
    let notice = found.ok_or_else(|| failure(StatusCode::NOT_FOUND, "no such notice"))?;
    Ok(Json(show(notice, &zone)).into_response())
}

async fn trusted() -> Result<Json<trust::Answer>, Failure> {
    trust::examine().map(Json).map_err(broken)
}

async fn digest(UrlPath((algorithm, text)): UrlPath<(String, String)>) -> Result<String, Failure> {
    trust::digest(&algorithm, text.as_bytes()).map_err(|error| failure(StatusCode::BAD_REQUEST, error))
}

async fn user(UrlPath(name): UrlPath<String>) -> Result<Json<serde_json::Value>, Failure> {
    use uzers::os::unix::UserExt;
    let found = uzers::get_user_by_name(&name);
    let account = found.ok_or_else(|| failure(StatusCode::NOT_FOUND, "no such user"))?;
    Ok(Json(json!({ "uid": account.uid(), "home": account.home_dir(), "shell": account.shell() })))
}
