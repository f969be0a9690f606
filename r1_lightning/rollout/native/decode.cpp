// One decoding step of a DeepSeek-V3-style network (MLA; dense feed-forwards or mixtures of experts) and its keyed draws, on a CPU.
// `native_model.py` fills the structures below and calls `decode_step` once per token. Rows go through all layers in chunks, which
// stay in the core's own cache. Nothing of a row depends on the other rows: every sum runs in an order that its row alone decides.
// Weights of linear maps come in panels of PANEL outputs, inputs x PANEL each; the cache in blocks of LANES columns, width x LANES
// each: `prefix` once per prompt, `own` per row. The mathematics is that of model/mla.py (absorbed projections), model/moe.py and
// model/router.py. Sizes are in elements; a stride is the distance between rows.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>
using Int = int64_t; using std::copy_n, std::fill, std::min, std::vector;
#if defined(__AVX512F__)
constexpr int LANES = 16, TILE_ROWS = 12;
#elif defined(__AVX__)
constexpr int LANES = 8, TILE_ROWS = 6;
#else
constexpr int LANES = 4, TILE_ROWS = 6;
#endif
constexpr int PANEL = 2 * LANES, AHEAD = 32 * PANEL, HEADS = 4, VOCABULARY_TILE = 2048;
typedef float Lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));
extern "C" {
struct Layer {  // null: the layer has no such weight. Without a query rank `query_up` is the whole projection
  const float *attention_norm, *query_down, *query_norm, *query_up, *latent_down, *latent_norm, *key_up, *value_up, *out;
  const float *feed_forward_norm, *gate_up, *down, *router, *expert_bias, *expert_gate_up, *expert_down;
};
struct Model {
  Int width, layers, heads, query_rank, nope, rope, value, latent, dense_ff, shared_ff, expert_ff, experts, chosen, vocabulary;
  float norm_eps, latent_eps, softmax_scale, route_scale;
  const Layer* layer;
  const float *embedding, *norm, *head, *cos, *sin;
};
struct Step {  // `slot` is a row's place in `own`, `column` that of its new token there, `position` its position id
  Int rows, column, chunk, threads, own_blocks, prefix_blocks;
  const Int *token, *slot, *position, *prompt, *prefix_columns;  // prefix_columns: of each prompt
  float *const *own, *const *prefix;                             // of each layer
  const float* uniform;
  float temperature;
  Int *drawn, *routes;       // routes: mixtures x rows x chosen, or null
  float *logprob, *hidden;   // hidden: rows x width, or null; if given, it is written and nothing is drawn
};
}
namespace {
Lanes load(const float* p) { return *reinterpret_cast<const Lanes*>(p); }
void store(float* p, Lanes x) { *reinterpret_cast<Lanes*>(p) = x; }
Int blocks_of(Int n, Int size) { return (n + size - 1) / size; }
Int packed(Int outputs, Int inputs) { return blocks_of(outputs, PANEL) * PANEL * inputs; }
struct Buffer {  // not cleared
  std::unique_ptr<float[]> data;
  explicit Buffer(Int size) : data(new float[size]) {}
  operator float*() const { return data.get(); }
};
// e^x to within 2 units in the last place (2^n times Cephes' polynomial); 0 below -87; NaN stays NaN.
inline float exponential(float x) {
  const float magic = 12582912.f, bounded = x > 88.f ? 88.f : x < -87.f ? -87.f : x, shifted = bounded * 1.44269504f + magic;
  const float n = shifted - magic, r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  for (float next : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f}) p = p * r + next;
  union { float number; uint32_t bits; } power{shifted};
  power.bits = (power.bits + 127u) << 23;  // the lowest bits of `shifted` hold n
  return x < -87.f ? 0.f : (p * r * r + r + 1.f) * power.number;
}
float largest_of(const float* x, Int n) {
  float largest = -INFINITY;
#pragma omp simd reduction(max : largest)
  for (Int i = 0; i < n; i++) largest = x[i] > largest ? x[i] : largest;
  return largest;
}
float exponentiate(const float* x, Int n, float largest, float* y) {  // y = e^(x - largest); returns the sum
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (Int i = 0; i < n; i++) sum += y[i] = exponential(x[i] - largest);
  return sum;
}
void normalise(Int rows, Int width, const float* x, Int stride, const float* weight, float eps, float* y) {
  for (Int row = 0; row < rows; row++, x += stride, y += stride) {
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (Int i = 0; i < width; i++) squares += x[i] * x[i];
    const float scale = 1.f / std::sqrt(squares / width + eps);
    for (Int i = 0; i < width; i++) y[i] = x[i] * scale * weight[i];
  }
}
void rotate(const float* x, const float* cos, const float* sin, Int half, float* y) {
  for (Int i = 0; i < half; i++)
    y[i] = x[2 * i] * cos[i] - x[2 * i + 1] * sin[i], y[half + i] = x[2 * i + 1] * cos[i] + x[2 * i] * sin[i];
}
// Up to M rows of x (rows x inputs) times one panel, written to y or added to it.
template <int M>
void tile(Int rows, Int inputs, const float* x, Int stride, const float* panel, Int outputs, float* y, Int y_stride, bool add) {
  if constexpr (M > 1)
    if (rows < M) return tile<M - 1>(rows, inputs, x, stride, panel, outputs, y, y_stride, add);
  Lanes low[M] = {}, high[M] = {};
  for (Int k = 0; k < inputs; k++, panel += PANEL) {
    const Lanes a = load(panel), b = load(panel + LANES);
    __builtin_prefetch(panel + AHEAD), __builtin_prefetch(panel + AHEAD + LANES);  // the processor's own ends with a page
#pragma GCC unroll 12
    for (int i = 0; i < M; i++) low[i] += x[i * stride + k] * a, high[i] += x[i * stride + k] * b;
  }
#pragma GCC unroll 12
  for (int i = 0; i < M; i++, y += y_stride) {
    float sums[PANEL], *whole = outputs == PANEL ? y : sums;
    if (add && whole == y) low[i] += load(y), high[i] += load(y + LANES);
    store(whole, low[i]), store(whole + LANES, high[i]);
    for (Int j = 0; j < outputs && whole != y; j++) y[j] = add ? y[j] + sums[j] : sums[j];
  }
}
// y (rows x outputs) = x (rows x inputs) times packed weights, written to y or added to it.
void product(Int rows, const float* x, Int stride, const float* w, Int outputs, Int inputs, float* y, Int ys, bool add) {
  for (Int at = 0; at < outputs; at += PANEL, w += inputs * PANEL)
    for (Int i = 0; i < rows; i += TILE_ROWS)
      tile<TILE_ROWS>(rows - i, inputs, x + i * stride, stride, w, min<Int>(PANEL, outputs - at), y + i * ys + at, ys, add);
}
void swiglu_product(Int rows, const float* x, Int width, const float* gate_up, const float* down, Int hidden, float* y, bool add) {
  Buffer both(rows * 2 * hidden);
  product(rows, x, width, gate_up, 2 * hidden, width, both, 2 * hidden, false);
  for (Int row = 0; row < rows; row++) {
    float *gate = both + row * 2 * hidden, *up = gate + hidden;
#pragma omp simd
    for (Int i = 0; i < hidden; i++) gate[i] = gate[i] / (1.f + exponential(-gate[i])) * up[i];
  }
  product(rows, both, 2 * hidden, down, width, hidden, y, width, add);
}
// x and y hold groups of G partial sums: first those of x, then those of y, folded until each group is one number.
template <int G, size_t... I>
Lanes fold(Lanes x, Lanes y, std::index_sequence<I...> all) {
  const Lanes z = __builtin_shufflevector(x, y, (I / (G / 2) * G + I % (G / 2))...) +
                  __builtin_shufflevector(x, y, (I / (G / 2) * G + I % (G / 2) + G / 2)...);
  if constexpr (G > LANES / 2 || G == 2) return z;  // of whole vectors there are two more to fold in
  else return fold<G / 2>(z, z, all);
}
// HEADS queries of one row (HEADS x width) to their weighted sums of latents (HEADS x latent), over `shared` columns of the prompt
// and `own` ones in the blocks behind; a last block may only make their number even. `next`: own blocks of the next row, or null.
void attend(const Model& m, const float* q, const vector<const float*>& blocks, Int shared, Int own, const float* next,
            float* scores, float* mixed) {
  const Int width = m.latent + m.rope, length = Int(blocks.size()) * LANES, begin = blocks_of(shared, LANES) * LANES;
  float inverse[HEADS], part[LANES], scale = m.softmax_scale;
  for (Int at = 0; at < length; at += PANEL) {  // two blocks at a time: as many sums as the processor can add to at once
    const float *keys = blocks[at / LANES], *more = blocks[at / LANES + 1];
    const float *soon = next && at < own ? next + at * width : keys, *then = next && at + LANES < own ? soon + width * LANES : keys;
    Lanes sums[HEADS] = {}, other[HEADS] = {};
    for (Int w = 0; w < width; w++) {
      __builtin_prefetch(soon + w * LANES), __builtin_prefetch(then + w * LANES);
      for (int h = 0; h < HEADS; h++)
        sums[h] += q[h * width + w] * load(keys + w * LANES), other[h] += q[h * width + w] * load(more + w * LANES);
    }
    for (int h = 0; h < HEADS; h++)
      store(scores + h * length + at, sums[h] * scale), store(scores + h * length + at + LANES, other[h] * scale);
  }
  for (int h = 0; h < HEADS; h++) {
    float* row = scores + h * length;
    fill(row + shared, row + begin, -INFINITY), fill(row + begin + own, row + length, -INFINITY);
    inverse[h] = 1.f / exponentiate(row, length, largest_of(row, length), row);
  }
  for (Int c = 0; c < m.latent; c += 2) {
    Lanes sums[2][HEADS] = {};
    for (Int at = 0; at < length; at += LANES)
#pragma GCC unroll 8
      for (int i = 0; i < 2 * HEADS; i++)
        sums[i % 2][i / 2] += load(blocks[at / LANES] + (c + i % 2) * LANES) * load(scores + i / 2 * length + at);
    for (Int j = 0; j < min<Int>(2, m.latent - c); j++) {
      const auto all = std::make_index_sequence<LANES>{};
      store(part, fold<LANES / 2>(fold<LANES>(sums[j][0], sums[j][1], all), fold<LANES>(sums[j][2], sums[j][3], all), all));
      for (int h = 0; h < HEADS; h++) mixed[h * m.latent + c + j] = part[h] * inverse[h];
    }
  }
}
struct Chunk {
  const Model& m;
  const Step& step;
  const Int first, rows;  // among the rows of the step
  Buffer x{rows * m.width}, normed{rows * m.width};
  void run() {
    for (Int i = 0; i < rows; i++) copy_n(m.embedding + step.token[first + i] * m.width, m.width, x + i * m.width);
    for (Int layer = 0, mixtures = 0; layer < m.layers; layer++) {
      const Layer& w = m.layer[layer];
      normalise(rows, m.width, x, m.width, w.attention_norm, m.norm_eps, normed);
      attention(w, step.own[layer], step.prefix[layer]);
      normalise(rows, m.width, x, m.width, w.feed_forward_norm, m.norm_eps, normed);
      swiglu_product(rows, normed, m.width, w.gate_up, w.down, w.router ? m.shared_ff : m.dense_ff, x, true);
      if (w.router) mixture(w, mixtures++);
    }
    normalise(rows, m.width, x, m.width, m.norm, m.norm_eps, normed);
    step.hidden ? (void)copy_n(normed + 0, rows * m.width, step.hidden + first * m.width) : draw();
  }
  void attention(const Layer& w, float* own, const float* prefix) {
    const Int head = m.nope + m.rope, width = m.latent + m.rope, padded = blocks_of(m.heads, HEADS) * HEADS, size = width * LANES;
    const Int q_stride = m.heads * head, a_stride = padded * width, m_stride = padded * m.latent, v_stride = m.heads * m.value;
    const Int rank = w.query_down ? m.query_rank : m.width, in_block = step.column % LANES;
    Buffer query(rows * q_stride), absorbed(rows * a_stride), mixed(rows * m_stride), values(rows * v_stride), low(rows * rank);
    Buffer cached(rows * width), turned(m.rope), scores(HEADS * LANES * (step.prefix_blocks + step.own_blocks + 1));
    if (w.query_down) product(rows, normed, m.width, w.query_down, rank, m.width, low, rank, false);
    if (w.query_down) normalise(rows, rank, low, rank, w.query_norm, m.latent_eps, low);
    product(rows, w.query_down ? low : normed, rank, w.query_up, q_stride, rank, query, q_stride, false);
    product(rows, normed, m.width, w.latent_down, width, m.width, cached, width, false);
    normalise(rows, m.latent, cached, width, w.latent_norm, m.latent_eps, cached);
    fill(absorbed + 0, absorbed + rows * a_stride, 0.f);  // heads that only fill up HEADS ask for nothing
    for (Int h = 0, at = 0; h < m.heads; h++, at += packed(m.latent, m.nope))  // W^UK is absorbed into the query
      product(rows, query + h * head, q_stride, w.key_up + at, m.latent, m.nope, absorbed + h * width, a_stride, false);
    vector<const float*> blocks;
    for (Int i = 0, row = first; i < rows; i++, row++) {
      const Int prompt = step.prompt[row], shared = step.prefix_columns[prompt];
      const float *cos = m.cos + step.position[row] * (m.rope / 2), *sin = m.sin + step.position[row] * (m.rope / 2);
      float *q = query + i * q_stride, *a = absorbed + i * a_stride, *newest = cached + i * width;
      for (Int h = 0; h < m.heads; h++) rotate(q + h * head + m.nope, cos, sin, m.rope / 2, a + h * width + m.latent);
      rotate(newest + m.latent, cos, sin, m.rope / 2, turned), copy_n(turned + 0, m.rope, newest + m.latent);
      float *mine = own + step.slot[row] * step.own_blocks * size, *block = mine + step.column / LANES * size;
      if (in_block == 0) fill(block, block + size, 0.f);  // columns to come must be finite: they weigh 0
      for (Int c = 0; c < width; c++) block[c * LANES + in_block] = newest[c];
      blocks.clear();
      for (Int b = 0; b * LANES < shared; b++) blocks.push_back(prefix + (prompt * step.prefix_blocks + b) * size);
      for (Int b = 0; b * LANES <= step.column; b++) blocks.push_back(mine + b * size);
      if (blocks.size() % 2) blocks.push_back(block);
      const float* next = i + 1 < rows ? own + step.slot[row + 1] * step.own_blocks * size : nullptr;
      for (Int h = 0; h < padded; h += HEADS, next = nullptr)
        attend(m, a + h * width, blocks, shared, step.column + 1, next, scores, mixed + i * m_stride + h * m.latent);
    }
    for (Int h = 0, at = 0; h < m.heads; h++, at += packed(m.value, m.latent))  // W^UV after the sum
      product(rows, mixed + h * m.latent, m_stride, w.value_up + at, m.value, m.latent, values + h * m.value, v_stride, false);
    product(rows, values, v_stride, w.out, m.width, v_stride, x, m.width, true);
  }
  // Experts of one token, best biased affinity first, and their gates (V3 eq 13-16). Overwrites its logits.
  void route(const float* bias, float* affinity, Int* experts, float* gates) const {
    vector<float> biased(m.experts); float total = 1e-20f;
    for (Int e = 0; e < m.experts; e++) affinity[e] = 1.f / (1.f + exponential(-affinity[e])), biased[e] = affinity[e] + bias[e];
    for (Int k = 0; k < m.chosen; k++) {
      const Int e = experts[k] = std::max_element(biased.begin(), biased.end()) - biased.begin();
      biased[e] = -INFINITY, total += gates[k] = affinity[e];
    }
    for (Int k = 0; k < m.chosen; k++) gates[k] = gates[k] / total * m.route_scale;
  }
  void mixture(const Layer& w, Int number) {
    const Int n = rows * m.chosen, width = m.width, up = packed(2 * m.expert_ff, width), down = packed(width, m.expert_ff);
    Buffer affinity(rows * m.experts), gates(n), sorted(n * width), outputs(n * width);
    vector<Int> experts(n), order(n), end(m.experts + 2, 0);
    product(rows, normed, width, w.router, m.experts, width, affinity, m.experts, false);
    for (Int i = 0; i < rows; i++) route(w.expert_bias, affinity + i * m.experts, &experts[i * m.chosen], gates + i * m.chosen);
    if (step.routes) std::copy(experts.begin(), experts.end(), step.routes + (number * step.rows + first) * m.chosen);
    for (Int expert : experts) end[expert + 2]++;
    for (Int e = 0; e < m.experts; e++) end[e + 2] += end[e + 1];
    for (Int i = 0; i < n; i++) order[end[experts[i] + 1]++] = i;  // now end[e] is where expert e begins, end[e + 1] where it ends
    for (Int i = 0; i < n; i++) copy_n(normed + order[i] / m.chosen * width, width, sorted + i * width);
    for (Int e = 0; e < m.experts; e++)
      swiglu_product(end[e + 1] - end[e], sorted + end[e] * width, width, w.expert_gate_up + e * up, w.expert_down + e * down,
                     m.expert_ff, outputs + end[e] * width, false);
    for (Int i = 0; i < n; i++)  // a row adds up its experts in the order of their numbers
      for (Int c = 0; c < width; c++) x[order[i] / m.chosen * width + c] += gates[order[i]] * outputs[i * width + c];
  }
  Int tile_tokens(Int number) const { return min<Int>(VOCABULARY_TILE, m.vocabulary - number * VOCABULARY_TILE); }
  // e^(logits / temperature - largest) of one tile of the vocabulary for some rows, and their largest and sums.
  void weigh(Int at, Int count, Int number, float* z, float* largest, float* sums, Int stride) const {
    const Int begin = number * VOCABULARY_TILE, tokens = tile_tokens(number), padded = blocks_of(tokens, LANES) * LANES;
    product(count, normed + at * m.width, m.width, m.head + begin * m.width, tokens, m.width, z, VOCABULARY_TILE, false);
    for (Int i = 0; i < count; i++, z += VOCABULARY_TILE, largest += stride, sums += stride) {
      for (Int j = 0; j < tokens && step.temperature != 1; j++) z[j] /= step.temperature;
      fill(z + tokens, z + padded, -INFINITY);
      *largest = largest_of(z, padded), *sums = exponentiate(z, padded, *largest, z);
    }
  }
  // Draws a token per row. Of a tile of the vocabulary the largest logit and the sum are kept; that in which the cumulative
  // distribution passes the uniform number is computed once more. A NaN among the logits makes the log-prob NaN.
  void draw() {
    const Int tiles = blocks_of(m.vocabulary, VOCABULARY_TILE);
    Buffer z(rows * VOCABULARY_TILE), largest(rows * tiles), sums(rows * tiles), again(2);
    for (Int t = 0; t < tiles; t++) weigh(0, rows, t, z, largest + t, sums + t, tiles);
    for (Int i = 0; i < rows; i++) {
      float *weights = z + i * VOCABULARY_TILE, *sum = sums + i * tiles, top = largest_of(largest + i * tiles, tiles);
      double total = 0, before = 0; Int t = 0, token = 0;
      for (Int t = 0; t < tiles; t++) total += sum[t] *= exponential(largest[i * tiles + t] - top);
      const double wanted = step.uniform[first + i] * total;
      for (; t + 1 < tiles && before + sum[t] <= wanted; t++) before += sum[t];
      if (tiles > 1) weigh(i, 1, t, weights, again, again + 1, 1);
      const double scale = exponential(largest[i * tiles + t] - top);  // of a tile's weights among all
      for (Int j = 0; j < tile_tokens(t) && before <= wanted; j++)
        if (weights[j] > 0) before += scale * weights[token = j];
      step.drawn[first + i] = t * VOCABULARY_TILE + token;
      step.logprob[first + i] = float(std::log(scale * weights[token]) - std::log(total));
    }
  }
};
}  // namespace
extern "C" Int lanes() { return LANES; }
extern "C" Int decode_step(const Model* model, const Step* step) {  // returns 1 where memory ran out, else 0
  std::atomic<Int> next{0}, failed{0};
  auto work = [&]() noexcept {
    try {
      for (Int i = next++ * step->chunk; i < step->rows; i = next++ * step->chunk)
        Chunk{*model, *step, i, min(step->chunk, step->rows - i)}.run();
    } catch (...) { failed = 1; }
  };
  vector<std::thread> others;
  try {
    for (Int i = 1; i < min(step->threads, blocks_of(step->rows, step->chunk)); i++) others.emplace_back(work);
  } catch (...) {}  // fewer threads do the same work
  work();
  for (std::thread& other : others) other.join();
  return failed;
}
