// The official OpenAI SDK as a client of the relay, configured by the environment. Each check prints a line of JSON.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const required = createRequire(pathToFileURL(`${process.env.SDK_FOLDER}/package.json`));
const OpenAI = required("openai");
const { BASE_URL, KEY, POOR_KEY, LIMITED_KEY, DISABLED_KEY, MODEL } = process.env;

let asked = 0;
const counted = (...args) => {
  asked += 1;
  return fetch(...args);
};
const clientOf = (apiKey) => new OpenAI({ apiKey, baseURL: BASE_URL, fetch: counted });
const client = clientOf(KEY);
const hello = { model: MODEL, messages: [{ role: "user", content: "Grüße, 你好 👋" }] };

async function collected(stream) {
  const all = [];
  for await (const one of stream) all.push(one);
  return all;
}

async function refusal(deed) {
  asked = 0;
  try {
    await deed();
  } catch (error) {
    return error;
  }
  throw new Error("it was not refused");
}

function assertRefused(error, kind, status, code) {
  assert.ok(error instanceof kind, `${error.constructor.name}: ${error.message}`);
  assert.deepEqual({ status: error.status, code: error.code }, { status, code });
  assert.ok(error.error.message && error.error.type, JSON.stringify(error.error));
  assert.ok("param" in error.error, "param is missing");
}

const checks = {
  async "models.list"() {
    const names = (await collected(await client.models.list())).map((model) => model.id);
    assert.ok(names.includes(MODEL), names.join());
  },
  async "models.retrieve"() {
    const model = await client.models.retrieve(MODEL);
    assert.deepEqual([model.id, model.object], [MODEL, "model"]);
  },
  async "chat.completions.create"() {
    const { data, response } = await client.chat.completions.create(hello).withResponse();
    assert.ok(data.choices[0].message.content.length > 20);
    assert.equal(data.usage.total_tokens, data.usage.prompt_tokens + data.usage.completion_tokens);
    assert.match(response.headers.get("x-space-request-id"), /^[0-9a-f-]{36}$/);
    assert.ok(Number(response.headers.get("x-space-cost-usd")) > 0);
    assert.ok(Number(response.headers.get("x-space-remaining-usd")) > 0);
  },
  async "chat.completions.create, several choices"() {
    const done = await client.chat.completions.create({ ...hello, n: 3, max_completion_tokens: 5 });
    assert.deepEqual(done.choices.map((choice) => choice.finish_reason), ["length", "length", "length"]);
    assert.equal(done.usage.completion_tokens, 15);
  },
  async "chat.completions.create, fields that we do not know"() {
    const more = { seed: 1, user: "me", metadata: { a: "b" }, logit_bias: {}, service_tier: "auto", of_tomorrow: [1] };
    const tools = [{ type: "function", function: { name: "now", parameters: { type: "object", properties: {} } } }];
    const done = await client.chat.completions.create({ ...hello, ...more, tools });
    assert.ok(done.choices[0].message.content);
  },
  async "chat.completions.create, stream"() {
    const chunks = await collected(await client.chat.completions.create({ ...hello, stream: true }));
    const text = chunks.map((chunk) => chunk.choices[0]?.delta?.content ?? "").join("");
    assert.ok(text.length > 20);
    assert.ok(chunks.every((chunk) => chunk.choices.length === 1 && !chunk.usage), "usage that nobody asked for");
    assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
  },
  async "chat.completions.create, stream with usage"() {
    const options = { stream: true, stream_options: { include_usage: true } };
    const chunks = await collected(await client.chat.completions.create({ ...hello, ...options }));
    assert.equal(chunks.at(-1).choices.length, 0);
    assert.ok(chunks.at(-1).usage.completion_tokens > 0);
  },
  async "chat.completions.stream (the SDK's helper)"() {
    const stream = client.chat.completions.stream({ ...hello, stream_options: { include_usage: true } });
    const done = await stream.finalChatCompletion();
    assert.ok(done.choices[0].message.content.length > 20);
    assert.ok(done.usage.completion_tokens > 0);
  },
  async "chat.completions.create, a client that leaves in mid-stream"() {
    const stream = await client.chat.completions.create({ ...hello, stream: true });
    for await (const _ of stream) break;
    assert.ok(stream.controller.signal.aborted);
    assert.ok((await client.chat.completions.create(hello)).choices.length);
  },
  async "chat.completions.create, 40 at once"() {
    const many = await Promise.all(Array.from({ length: 40 }, () => client.chat.completions.create(hello)));
    assert.equal(new Set(many.map((one) => one.choices[0].message.content)).size, 1);
  },
  async "chat.completions.create, a megabyte of text"() {
    const long = { model: MODEL, messages: [{ role: "user", content: "word ".repeat(200_000) }], max_tokens: 5 };
    assert.ok((await client.chat.completions.create(long)).usage.prompt_tokens > 100_000);
  },
  async "completions.create"() {
    const done = await client.completions.create({ model: MODEL, prompt: "Once upon", max_tokens: 9 });
    assert.ok(done.choices[0].text.length > 5);
    assert.equal(done.usage.completion_tokens, 9);
  },
  async "completions.create, stream"() {
    const chunks = await collected(await client.completions.create({ model: MODEL, prompt: "Once", stream: true }));
    assert.ok(chunks.map((chunk) => chunk.choices[0]?.text ?? "").join("").length > 20);
  },
  async "embeddings.create"() {
    const done = await client.embeddings.create({ model: MODEL, input: ["one", "two"] });
    assert.deepEqual(done.data.map((row) => row.embedding.length), [1536, 1536]);
    assert.ok(Math.abs(done.data[0].embedding.reduce((sum, x) => sum + x * x, 0) - 1) < 1e-3);
  },
  async "responses.create"() {
    const done = await client.responses.create({ model: MODEL, input: "Hello", max_output_tokens: 200 });
    assert.equal(done.status, "completed");
    assert.ok(done.output_text.length > 20 && done.usage.output_tokens > 0);
  },
  async "responses.create, stream"() {
    const events = await collected(await client.responses.create({ model: MODEL, input: "Hello", stream: true }));
    assert.deepEqual([events[0].type, events.at(-1).type], ["response.created", "response.completed"]);
    assert.ok(events.at(-1).response.usage.output_tokens > 0);
  },
  async "responses.stream (the SDK's helper)"() {
    const done = await client.responses.stream({ model: MODEL, input: "Hello" }).finalResponse();
    assert.ok(done.output_text.length > 20);
  },
  async "401 for a wrong key"() {
    const wrong = clientOf("sk-1-" + "x".repeat(43));
    const error = await refusal(() => wrong.chat.completions.create(hello));
    assertRefused(error, OpenAI.AuthenticationError, 401, "invalid_api_key");
  },
  async "401 for what is no key of ours"() {
    const wrong = clientOf("sk-proj-abc");
    assertRefused(await refusal(() => wrong.models.list()), OpenAI.AuthenticationError, 401, "invalid_api_key");
  },
  async "403 for a disabled member"() {
    const error = await refusal(() => clientOf(DISABLED_KEY).chat.completions.create(hello));
    assertRefused(error, OpenAI.PermissionDeniedError, 403, "account_disabled");
  },
  async "404 for an unknown model"() {
    const error = await refusal(() => client.chat.completions.create({ ...hello, model: "no-such-model" }));
    assertRefused(error, OpenAI.NotFoundError, 404, "model_not_found");
  },
  async "404 for an unknown model, retrieved"() {
    assertRefused(await refusal(() => client.models.retrieve("no-such")), OpenAI.NotFoundError, 404, "model_not_found");
  },
  async "404 for an endpoint that is not here"() {
    const error = await refusal(() => client.moderations.create({ input: "x" }));
    assert.ok(error instanceof OpenAI.NotFoundError && error.error.message, error.message);
  },
  async "400 for a wrong field, named"() {
    const error = await refusal(() => client.chat.completions.create({ ...hello, max_tokens: -1 }));
    assert.ok(error instanceof OpenAI.BadRequestError, error.message);
    assert.equal(error.param, "max_tokens");
  },
  async "400 of the upstream, as the upstream put it"() {
    const error = await refusal(() => client.chat.completions.create({ model: MODEL, messages: [] }));
    assert.ok(error instanceof OpenAI.BadRequestError, error.message);
    assert.match(error.message, /messages/);
  },
  async "429 without money, tried once"() {
    const error = await refusal(() => clientOf(POOR_KEY).chat.completions.create(hello));
    assertRefused(error, OpenAI.RateLimitError, 429, "insufficient_quota");
    assert.equal(asked, 1, `the SDK asked ${asked} times`);
  },
  async "429 without money, a stream, tried once"() {
    const error = await refusal(() => clientOf(POOR_KEY).chat.completions.create({ ...hello, stream: true }));
    assertRefused(error, OpenAI.RateLimitError, 429, "insufficient_quota");
    assert.equal(asked, 1, `the SDK asked ${asked} times`);
  },
  async "429 for a key at its limit, tried once"() {
    const error = await refusal(() => clientOf(LIMITED_KEY).chat.completions.create(hello));
    assertRefused(error, OpenAI.RateLimitError, 429, "key_limit_reached");
    assert.equal(asked, 1, `the SDK asked ${asked} times`);
  },
  async "502 for an upstream that fails"() {
    const failing = { model: MODEL, messages: [{ role: "user", content: "demo:error=500" }] };
    const error = await refusal(() => client.chat.completions.create(failing, { maxRetries: 0 }));
    assertRefused(error, OpenAI.InternalServerError, 502, "upstream_error");
  },
};

for (const [name, check] of Object.entries(checks)) {
  let why = "";
  try {
    await check();
  } catch (error) {
    why = error.message || String(error);
  }
  console.log(JSON.stringify({ name, why }));
}
