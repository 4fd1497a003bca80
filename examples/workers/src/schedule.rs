//! The scheduled event. It is exported by hand: under `#[event(scheduled)]` every one succeeds, and a
//! failure must be seen where Cloudflare shows the past events.

use session_store::kv::workers::scheduled_host;
use session_store::{MaintenanceConfig, Result};
use worker::js_sys;
use worker::wasm_bindgen::JsValue;
use worker::wasm_bindgen::prelude::wasm_bindgen;
use worker::{Env, ScheduleContext, worker_sys};

use crate::app;

/// What the runtime calls.
#[wasm_bindgen(
    wasm_bindgen = worker::wasm_bindgen,
    wasm_bindgen_futures = worker::wasm_bindgen_futures,
    js_sys = worker::js_sys
)]
#[expect(unreachable_pub, reason = "what is exported must be public")]
pub async fn scheduled(
    _event: JsValue,
    env: Env,
    context: worker_sys::ScheduleContext,
) -> core::result::Result<(), JsValue> {
    let context = ScheduleContext::from(context);
    round(&env, &context).await.map_err(|error| {
        worker::console_error!("maintenance failed: {error}");
        js_sys::Error::new(&error.to_string()).into()
    })
}

async fn round(env: &Env, context: &ScheduleContext) -> Result<()> {
    let app = app::open(env, scheduled_host(context))?;
    // Shows every few minutes whether it could, not only to the first visitor.
    app.store().register().await?;
    app::remember(&app);
    app.maintenance(MaintenanceConfig::default())?.run_once().await
}
