"use strict";
/* The toy in the browser: its two networks, and Algorithm 1 around them, in float64. The order of operations is that of
   entrgi_ref/denoising.py and guidance.py, and the names are theirs, so that the same seed gives the same answers; the tests
   compare the two. Tables are Float64Arrays, row after row. One function, so that a worker can be made of its source. */
function liveEngine() {
  /* ---- Random numbers: draws.py ---- */

  const GOLDEN_RATIO = 0x9E3779B97F4A7C15n, PURPOSE = { hard: 1, commit: 2, origin: 4 };
  const word = x => BigInt.asUintN(64, x);

  /* SplitMix64: mix one field into a hash of 64 bits. */
  function absorb(state, field) {
    let z = word(state + (BigInt(field) + 1n) * GOLDEN_RATIO);
    z = word((z ^ (z >> 30n)) * 0xBF58476D1CE4E5B9n);
    z = word((z ^ (z >> 27n)) * 0x94D049BB133111EBn);
    return z ^ (z >> 31n);
  }
  const unitInterval = state => Number(state >> 11n) * 2 ** -53;
  const rowState = (seed, key, trajectory) => absorb(absorb(absorb(0n, seed), key), trajectory);

  /* One number in [0, 1) for each position. */
  function uniform(row, purpose, step, gradientStep, positions) {
    const state = absorb(absorb(absorb(row, PURPOSE[purpose]), step), gradientStep);
    return Float64Array.from(positions, position => unitInterval(absorb(state, position)));
  }

  /* The fewest most probable tokens that pass mass topP; the others get 0. */
  function nucleus(q, topP) {
    if (topP === 1) return q;
    const falling = Array.from(q.keys()).sort((a, b) => q[b] - q[a] || a - b);
    const kept = new Float64Array(q.length);
    let before = 0, mass = 0;
    for (const i of falling) {
      if (before > topP) break;
      kept[i] = q[i];
      mass += q[i];
      before += q[i];
    }
    return kept.map(p => p / mass);
  }

  /* The first token at which the cumulative probability exceeds u, never one of probability 0. */
  function inverseCdf(q, u) {
    let total = 0;
    const cumulative = q.map(p => total += p);
    const token = cumulative.findIndex(c => c > u * total), last = cumulative.findIndex(c => c >= total);
    return token < 0 ? last : Math.min(token, last);
  }

  /* ---- Equations 1 to 8 for one position: relaxation.py, errors.py, fast/gradient.py ---- */

  const greatest = psi => psi.reduce((a, b) => Math.max(a, b), -Infinity);
  const tempered = (psi, tau) => { const top = greatest(psi); return psi.map(x => (x - top) / tau); };

  /* Eq. 1 */
  function tokenDistribution(psi, tau) {
    let sum = 0;
    const q = tempered(psi, tau).map(x => { const e = Math.exp(x); sum += e; return e; });
    return q.map(e => e / sum);
  }
  /* Eq. 2 */
  function softEmbedding(q, table, width) {
    const soft = new Float64Array(width);
    for (let i = 0; i < q.length; i++) if (q[i]) for (let j = 0; j < width; j++) soft[j] += q[i] * table[i * width + j];
    return soft;
  }
  /* Eq. 3 */
  const hardEmbedding = (token, table, width) => table.subarray(token * width, (token + 1) * width);
  /* Eq. 4, in nats */
  function entropy(logits) {
    const x = tempered(logits, 1), log = Math.log(x.reduce((sum, v) => sum + Math.exp(v), 0));
    return -x.reduce((h, v) => v === -Infinity ? h : h + Math.exp(v - log) * (v - log), 0);
  }
  const entropyWeight = (psi, tau) => Math.min(Math.max(entropy(tempered(psi, tau)) / Math.log(psi.length), 0), 1);
  const WEIGHTS = {
    expectation: () => 0,
    aps: () => 1,
    entrgi: psi => entropyWeight(psi, 1),
    entrgi_tempered: entropyWeight,
  };
  /* A method by name, or a constant. */
  const weightOf = weight => typeof weight === "number" ? () => weight : WEIGHTS[weight];
  /* Eq. 5, its value */
  const interpolate = (soft, hard, w) => soft.map((s, j) => s + w * (hard[j] - s));
  /* Eq. 6, uphill. `slope` is the reward's gradient at the mixed embedding. */
  function logitGradient(q, slope, soft, table, tau) {
    const width = soft.length, scaled = slope.map(g => g / tau);
    const atSoft = scaled.reduce((sum, g, j) => sum + g * soft[j], 0);
    return q.map((p, i) => {
      if (!p) return 0;
      let along = -atSoft;
      for (let j = 0; j < width; j++) along += scaled[j] * table[i * width + j];
      return p * along;
    });
  }
  const distance = (a, b) => Math.sqrt(a.reduce((sum, x, j) => sum + (x - b[j]) ** 2, 0));

  /* torch's Adam, going up. */
  class Adam {
    constructor(psi, stepSize) {
      Object.assign(this, { psi, stepSize, time: 0, m: new Float64Array(psi.length), v: new Float64Array(psi.length) });
    }
    step(gradient) {
      const time = ++this.time, { psi, m, v } = this;
      const rate = this.stepSize / (1 - 0.9 ** time), correction = Math.sqrt(1 - 0.999 ** time);
      for (let i = 0; i < psi.length; i++) {
        m[i] += (gradient[i] - m[i]) * (1 - 0.9);
        v[i] = v[i] * 0.999 + (1 - 0.999) * gradient[i] * gradient[i];
        psi[i] += rate * m[i] / (Math.sqrt(v[i]) / correction + 1e-8);
      }
    }
  }

  /* ---- Networks: toy/networks.py ---- */

  /* y[r, o] = bias[o] + sum over i of x[r, i] w[o, i]; two rows and four columns at a time, the last ones twice if need be. */
  function multiply(x, rows, n, w, m, bias, y) {
    for (let r = 0; r < rows; r += 2) {
      const s = Math.min(r + 1, rows - 1), xr = r * n, xs = s * n;
      for (let o = 0; o < m; o += 4) {
        const o1 = Math.min(o + 1, m - 1), o2 = Math.min(o + 2, m - 1), o3 = Math.min(o + 3, m - 1);
        const w0 = o * n, w1 = o1 * n, w2 = o2 * n, w3 = o3 * n;
        let a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
        for (let i = 0; i < n; i++) {
          const a = x[xr + i], b = x[xs + i], c0 = w[w0 + i], c1 = w[w1 + i], c2 = w[w2 + i], c3 = w[w3 + i];
          a0 += a * c0; a1 += a * c1; a2 += a * c2; a3 += a * c3;
          b0 += b * c0; b1 += b * c1; b2 += b * c2; b3 += b * c3;
        }
        if (bias) {
          a0 += bias[o]; a1 += bias[o1]; a2 += bias[o2]; a3 += bias[o3];
          b0 += bias[o]; b1 += bias[o1]; b2 += bias[o2]; b3 += bias[o3];
        }
        const yr = r * m, ys = s * m;
        y[ys + o] = b0; y[ys + o1] = b1; y[ys + o2] = b2; y[ys + o3] = b3;
        y[yr + o] = a0; y[yr + o1] = a1; y[yr + o2] = a2; y[yr + o3] = a3;
      }
    }
  }

  /* erf by its Taylor polynomial at the nearest of 97 nodes, exact to rounding. The polynomials come from the generating function
     of the Hermite polynomials, and erf at the nodes from a series of positive terms. */
  const NODES = 16, LAST = 6, ORDER = 10;
  const ERF = Array.from({ length: LAST * NODES + 1 }, (_, index) => {
    const x = index / NODES, c = 2 / Math.sqrt(Math.PI) * Math.exp(-x * x);
    let value = 0;
    for (let n = 0, term = c * x; term > 1e-18; n++, term *= 2 * x * x / (2 * n + 1)) value += term;
    const coefficients = new Float64Array(ORDER + 1);
    coefficients[0] = value;
    for (let n = 0, before = 0, h = 1, factorial = 1; n < ORDER; n++) {
      factorial *= n + 1;
      coefficients[n + 1] = (n % 2 ? -c : c) * h / factorial;
      [before, h] = [h, 2 * x * h - 2 * n * before];
    }
    return coefficients;
  });
  function erf(x) {
    const size = Math.abs(x);
    if (size >= LAST) return Math.sign(x);
    const index = Math.round(size * NODES), d = size - index / NODES, c = ERF[index];
    let value = 0;
    for (let n = ORDER; n >= 0; n--) value = value * d + c[n];
    return x < 0 ? -value : value;
  }
  const gelu = x => 0.5 * x * (1 + erf(x * Math.SQRT1_2));
  const geluSlope = x => 0.5 * (1 + erf(x * Math.SQRT1_2)) + x * Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI);

  function transposed(w, rows, columns) {
    const t = new Float64Array(w.length);
    for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) t[j * rows + i] = w[i * columns + j];
    return t;
  }

  /* Layer normalisation of some rows, and what its backward pass needs. */
  function normalise(x, first, rows, d, norm, kept, y) {
    for (let r = first; r < rows; r++) {
      let mean = 0, variance = 0;
      for (let i = 0; i < d; i++) mean += x[r * d + i];
      mean /= d;
      for (let i = 0; i < d; i++) variance += (x[r * d + i] - mean) ** 2;
      const scale = 1 / Math.sqrt(variance / d + 1e-5);
      kept.scale[r] = scale;
      for (let i = 0; i < d; i++) {
        const hat = kept.hat[r * d + i] = (x[r * d + i] - mean) * scale;
        y[r * d + i] = hat * norm.weight[i] + norm.bias[i];
      }
    }
  }
  /* Adds the gradient of the input to dx. */
  function normaliseBack(dy, first, rows, d, norm, kept, dx) {
    for (let r = first; r < rows; r++) {
      let mean = 0, along = 0;
      for (let i = 0; i < d; i++) {
        const g = dy[r * d + i] * norm.weight[i];
        mean += g;
        along += g * kept.hat[r * d + i];
      }
      mean /= d;
      along /= d;
      for (let i = 0; i < d; i++) {
        dx[r * d + i] += kept.scale[r] * (dy[r * d + i] * norm.weight[i] - mean - kept.hat[r * d + i] * along);
      }
    }
  }

  /* Pre-norm transformer. Only rows from `first` on are read off: all for the mask predictor, the last for the reward. */
  class Transformer {
    constructor(network, length, causal, first) {
      const { size, tensors } = network, d = size.width;
      const get = name => tensors[name];
      Object.assign(this, { d, heads: size.heads, length, causal, first });
      this.embedding = get("embedding.weight");
      this.position = get("transformer.position");
      const norm = name => ({ weight: get(`${name}.weight`), bias: get(`${name}.bias`) });
      this.layers = Array.from({ length: size.layers }, (_, index) => {
        const name = `transformer.layers.layers.${index}`;
        const project = get(`${name}.self_attn.in_proj_weight`), bias = get(`${name}.self_attn.in_proj_bias`);
        const layer = {
          norm1: norm(`${name}.norm1`), norm2: norm(`${name}.norm2`),
          q: { w: project.slice(0, d * d), bias: bias.slice(0, d), n: d, m: d },
          kv: { w: project.slice(d * d), bias: bias.slice(d), n: d, m: 2 * d },
          out: { w: get(`${name}.self_attn.out_proj.weight`), bias: get(`${name}.self_attn.out_proj.bias`), n: d, m: d },
          up: { w: get(`${name}.linear1.weight`), bias: get(`${name}.linear1.bias`), n: d, m: 4 * d },
          down: { w: get(`${name}.linear2.weight`), bias: get(`${name}.linear2.bias`), n: 4 * d, m: d },
          first: index === size.layers - 1 ? first : 0,
        };
        for (const part of ["q", "kv", "out", "up", "down"]) layer[part].back = transposed(layer[part].w, layer[part].m, layer[part].n);
        return layer;
      });
      this.norm = norm("transformer.layers.norm");
      const table = columns => new Float64Array(length * columns);
      const kept = () => ({ hat: table(d), scale: table(1) });
      this.tape = this.layers.map(() => ({
        x: table(d), norm1: kept(), n: table(d), q: table(d), kv: table(2 * d), p: table(size.heads * length), heads: table(d),
        x1: table(d), norm2: kept(), h: table(4 * d), g: table(4 * d),
      }));
      this.final = kept();
      this.room = { a: table(d), b: table(d), q: table(d), kv: table(2 * d), wide: table(4 * d), p: new Float64Array(length) };
    }

    /* Rows from `first` on of a layer applied to some rows. */
    apply(part, x, first, y, back = false) {
      const [n, m] = back ? [part.m, part.n] : [part.n, part.m];
      multiply(x.subarray(first * n), this.length - first, n, back ? part.back : part.w, m, back ? null : part.bias, y.subarray(first * m));
    }

    /* Vectors [length, d] in, normalised vectors out; those before `first` are of no use. */
    forward(embedded) {
      const { d, length, room } = this;
      let x = embedded.map((e, i) => e + this.position[i]);
      this.layers.forEach((layer, index) => {
        const t = this.tape[index], first = layer.first;
        t.x.set(x);
        normalise(x, 0, length, d, layer.norm1, t.norm1, t.n);
        this.apply(layer.q, t.n, first, t.q);
        this.apply(layer.kv, t.n, 0, t.kv);
        this.attend(t, first);
        this.apply(layer.out, t.heads, first, room.a);
        for (let i = first * d; i < length * d; i++) t.x1[i] = x[i] + room.a[i];
        normalise(t.x1, first, length, d, layer.norm2, t.norm2, room.b);
        this.apply(layer.up, room.b, first, t.h);
        for (let i = first * 4 * d; i < length * 4 * d; i++) t.g[i] = gelu(t.h[i]);
        this.apply(layer.down, t.g, first, room.a);
        for (let i = first * d; i < length * d; i++) x[i] = t.x1[i] + room.a[i];
      });
      const y = new Float64Array(length * d);
      normalise(x, this.first, length, d, this.norm, this.final, y);
      return y;
    }

    attend(t, first) {
      const { d, heads, length } = this, width = d / heads, scale = 1 / Math.sqrt(width);
      for (let h = 0; h < heads; h++) for (let r = first; r < length; r++) {
        const end = this.causal ? r + 1 : length, p = (h * length + r) * length, at = r * d + h * width;
        let top = -Infinity, sum = 0;
        for (let s = 0; s < end; s++) {
          let dot = 0;
          for (let i = 0, k = s * 2 * d + h * width; i < width; i++) dot += t.q[at + i] * t.kv[k + i];
          t.p[p + s] = dot * scale;
          top = Math.max(top, t.p[p + s]);
        }
        for (let s = 0; s < end; s++) sum += t.p[p + s] = Math.exp(t.p[p + s] - top);
        for (let i = 0; i < width; i++) t.heads[at + i] = 0;
        for (let s = 0; s < end; s++) {
          const share = t.p[p + s] /= sum;
          for (let i = 0, v = s * 2 * d + d + h * width; i < width; i++) t.heads[at + i] += share * t.kv[v + i];
        }
      }
    }

    attendBack(t, first, dHeads, dQ, dKv) {
      const { d, heads, length } = this, width = d / heads, scale = 1 / Math.sqrt(width), dP = this.room.p;
      dQ.fill(0);
      dKv.fill(0);
      for (let h = 0; h < heads; h++) for (let r = first; r < length; r++) {
        const end = this.causal ? r + 1 : length, p = (h * length + r) * length, at = r * d + h * width;
        let mean = 0;
        for (let s = 0; s < end; s++) {
          const share = t.p[p + s];
          let dot = 0;
          for (let i = 0, v = s * 2 * d + d + h * width; i < width; i++) {
            dot += dHeads[at + i] * t.kv[v + i];
            dKv[v + i] += share * dHeads[at + i];
          }
          dP[s] = dot;
          mean += share * dot;
        }
        for (let s = 0; s < end; s++) {
          const g = t.p[p + s] * (dP[s] - mean) * scale;
          for (let i = 0, k = s * 2 * d + h * width; i < width; i++) {
            dQ[at + i] += g * t.kv[k + i];
            dKv[k + i] += g * t.q[at + i];
          }
        }
      }
    }

    /* The gradient of the input of the last `forward`, from that of its output. */
    backward(dy) {
      const { d, length, room } = this;
      let dx = new Float64Array(length * d);
      normaliseBack(dy, this.first, length, d, this.norm, this.final, dx);
      for (let index = this.layers.length - 1; index >= 0; index--) {
        const layer = this.layers[index], t = this.tape[index], first = layer.first;
        this.apply(layer.down, dx, first, room.wide, true);
        for (let i = first * 4 * d; i < length * 4 * d; i++) room.wide[i] *= geluSlope(t.h[i]);
        this.apply(layer.up, room.wide, first, room.a, true);
        normaliseBack(room.a, first, length, d, layer.norm2, t.norm2, dx);
        this.apply(layer.out, dx, first, room.a, true);
        this.attendBack(t, first, room.a, room.q, room.kv);
        this.apply(layer.kv, room.kv, 0, room.a, true);
        this.apply(layer.q, room.q, first, room.b, true);
        for (let i = first * d; i < length * d; i++) room.a[i] += room.b[i];
        normaliseBack(room.a, 0, length, d, layer.norm1, t.norm1, dx);
      }
      return dx;
    }

    embed(tokens) {
      const found = new Float64Array(tokens.length * this.d);
      tokens.forEach((token, i) => found.set(hardEmbedding(token, this.embedding, this.d), i * this.d));
      return found;
    }
  }

  /* ---- The toy: toy/models.py, toy/language.py ---- */

  /* From what docs/building/live.py wrote; `bytes` are its float32 numbers. */
  function load(toy, bytes) {
    const numbers = new Float32Array(bytes);
    let at = 0;
    const networks = {};
    for (const [name, { size, shapes }] of Object.entries(toy.networks)) {
      const tensors = {};
      for (const [tensor, shape] of shapes) {
        const count = shape.reduce((a, b) => a * b, 1);
        tensors[tensor] = Float64Array.from(numbers.subarray(at, at += count));
      }
      networks[name] = { size, tensors };
    }
    const predictor = new Transformer(networks.denoiser, 3 + toy.length, false, 0);
    const judge = new Transformer(networks.reward, 3 + toy.length + 1, true, 3 + toy.length);
    const id = Object.fromEntries(toy.vocabulary.map((w, i) => [w, i]));
    const V = toy.vocabulary.length, eos = id["<eos>"], mask = id["<mask>"];
    const phiHead = networks.denoiser.tensors, rewardHead = networks.reward.tensors;

    return {
      toy, V, eos, mask, width: judge.d, table: judge.embedding, length: toy.length,
      encode: prompt => prompt.split(" ").map(w => id[w]),
      words: tokens => tokens.map(token => toy.vocabulary[token]),
      key: prompt => BigInt(toy.keys[prompt]),

      /* phi at the given positions of the response, one row each; -inf for ids that may not be written. */
      predict(prompt, response, positions) {
        const y = predictor.forward(predictor.embed([...prompt, ...response]));
        return positions.map(position => {
          const row = y.subarray((3 + position) * predictor.d, (4 + position) * predictor.d), logits = new Float64Array(V);
          multiply(row, 1, predictor.d, phiHead["head.weight"], V, phiHead["head.bias"], logits);
          return logits.map((x, i) => toy.writable[i] ? x : -Infinity);
        });
      },
      /* R, and with `mixed` vectors in place of some positions of the response also its gradient at them. */
      reward(prompt, response, positions = [], mixed = []) {
        const d = judge.d, embedded = judge.embed([...prompt, ...response, eos]);
        positions.forEach((position, i) => embedded.set(mixed[i], (3 + position) * d));
        const y = judge.forward(embedded), last = (judge.length - 1) * d, head = rewardHead["head.weight"];
        let value = rewardHead["head.bias"][0];
        for (let i = 0; i < d; i++) value += head[i] * y[last + i];
        if (!positions.length) return { value, slopes: [] };
        const dy = new Float64Array(y.length);
        dy.set(head, last);
        const dx = judge.backward(dy);
        return { value, slopes: positions.map(position => dx.slice((3 + position) * d, (4 + position) * d)) };
      },
    };
  }

  /* The parts of the gold score: [position, points, reason]. */
  function explainGold(toy, prompt, words) {
    const [subjects, objects, style] = prompt.split(" "), parts = [];
    let noun = "SUBJECT";
    const roles = words.map(w => {
      const category = toy.category[w];
      noun = { VERB: "OBJECT", CONJ: "SUBJECT" }[category] ?? noun;
      return category === "NOUN" ? noun : category;
    });
    words.forEach((w, i) => {
      const role = roles[i], before = i ? roles[i - 1] : "START", isNoun = role === "SUBJECT" || role === "OBJECT";
      if (!toy.followers[before].includes(toy.category[w])) parts.push([i, -1, `${toy.category[w]} may not follow ${before}`]);
      if (isNoun && toy.topic[w] === (role === "SUBJECT" ? subjects : objects)) parts.push([i, 1, `${role.toLowerCase()} on topic`]);
      if (role === "ADJ" && style !== "plain") {
        const fits = toy.style[w] === style;
        parts.push([i, fits ? 0.5 : -0.5, fits ? "in style" : "out of style"]);
      }
      if ((w === "a" || w === "an") && ["ADJ", "SUBJECT", "OBJECT"].includes(roles[i + 1])) {
        const fits = w === ("aeiou".includes(words[i + 1][0]) ? "an" : "a");
        parts.push([i, fits ? 0.25 : -0.5, fits ? "right article" : "wrong article"]);
      }
      if ((isNoun || role === "ADJ" || role === "VERB") && words.slice(0, i).includes(w)) parts.push([i, -1.5, "used before"]);
    });
    return parts;
  }

  /* ---- The schedule and the orders: schedule.py, orders.py ---- */

  const floorShare = (n, fraction) => Math.floor(Math.fround(n * fraction));

  /* The T steps of Algorithm 1: noise level t, the share of the masked tokens to commit, and how many that is. */
  function schedule(T, N) {
    const f = Math.fround, low = f(1e-3), width = f(f(low - 1) / T);
    const level = i => i < Math.floor((T + 1) / 2) ? f(1 + f(width * i)) : f(low - f(width * (T - i)));
    let left = N;
    return Array.from({ length: T }, (_, index) => {
      const fraction = index === T - 1 ? 1 : f(1 - f(level(index + 1) / level(index)));
      const count = floorShare(left, fraction);
      left -= count;
      return { index, t: level(index), fraction, count };
    });
  }

  /* Confidence of a candidate: (phi, psi, nucleus, token, tau) -> number. */
  const ORDERS = {
    entropy: (phi, psi, kept, token, tau) => -entropy(tempered(phi, tau)),
    maskgit_plus: (phi, psi, kept, token) => kept[token],
    topk_margin(phi, psi, kept) {
      const falling = Array.from(kept).sort((a, b) => b - a);
      return falling[0] - falling[1];
    },
    anchor: (phi, psi, kept, token) => psi[token],
  };

  /* Eq. 7, second half: which of the candidates are written, by their place in the list. */
  function commit(tokens, confidence, quota, putLast) {
    const late = i => Number(tokens[i] === putLast);
    const queue = Array.from(tokens.keys()).sort((a, b) => late(a) - late(b) || confidence[b] - confidence[a] || a - b);
    return queue.slice(0, quota);
  }

  /* ---- Algorithm 1 ---- */

  /* The inner loop: psi at the masked positions of one trajectory, and a record of each gradient step. `observe` gets all that
     a step computes, psi from before it and after it. */
  function guide(model, prompt, response, positions, logits, row, step, config, observe) {
    const { M, eta, tau, topP } = config, { table, width } = model, weigh = weightOf(config.weight);
    const psi = logits.map(phi => phi.slice()), climbs = psi.map(p => new Adam(p, eta)), records = [];
    for (let m = 0; m < M; m++) {
      const q = psi.map(p => tokenDistribution(p, tau));
      const soft = q.map(p => softEmbedding(p, table, width));
      const kept = q.map(p => nucleus(p, topP)), chance = uniform(row, "hard", step, m, positions);
      const tokens = kept.map((p, i) => inverseCdf(p, chance[i]));
      const hard = tokens.map(token => hardEmbedding(token, table, width));
      const weight = psi.map(p => weigh(p, tau));
      const mixed = soft.map((s, i) => interpolate(s, hard[i], weight[i]));
      const { value, slopes } = model.reward(prompt, response, positions, mixed);
      const record = {
        weight, entropy: psi.map(entropy), reward: value,
        E: mixed.map((e, i) => distance(e, soft[i])), D: mixed.map((e, i) => distance(e, hard[i])),
      };
      records.push(record);
      const gradients = q.map((p, i) => logitGradient(p, slopes[i], soft[i], table, tau)), copy = () => psi.map(p => p.slice());
      const before = observe && copy();
      climbs.forEach((climb, i) => climb.step(gradients[i]));
      observe?.({ ...record, psi: before, q, soft, kept, chance, tokens, hard, mixed, slopes, gradients, moved: copy() });
    }
    return { psi, records };
  }

  const DEFAULTS = { K: 4, T: 16, M: 3, eta: 0.5, tau: 0.7, topP: 0.95, order: "entropy", eosLast: true, seed: 0, weight: "entrgi" };

  const maskedOf = (model, response) => Array.from(response.keys()).filter(i => response[i] === model.mask);

  /* How many of the masked tokens a step commits. Under `origin` chance decides. */
  function howMany(positions, row, step, order) {
    if (order !== "origin") return floorShare(positions.length, step.fraction);
    return uniform(row, "origin", step.index, 0, positions).filter(u => u < step.fraction).length;
  }

  /* A step of one trajectory: predict, guide, draw a candidate for each masked position, and keep some. */
  function denoise(model, prompt, response, row, step, config, observe) {
    const { tau, topP, order } = config, chancy = order === "origin", positions = maskedOf(model, response);
    const phi = model.predict(prompt, response, positions);
    const { psi, records } = guide(model, prompt, response, positions, phi, row, step.index, config, observe);
    const kept = psi.map(p => nucleus(tokenDistribution(p, tau), topP)), chance = uniform(row, "commit", step.index, 0, positions);
    const candidates = kept.map((p, i) => inverseCdf(p, chance[i]));
    const late = chancy ? uniform(row, "origin", step.index, 0, positions) : null;
    const confidence = kept.map((p, i) => chancy ? -late[i] : ORDERS[order](phi[i], psi[i], p, candidates[i], tau));
    const quota = howMany(positions, row, step, order);
    const committed = commit(candidates, confidence, quota, config.eosLast && !chancy ? model.eos : null);
    const tokens = Array.from(response);
    for (const i of committed) tokens[positions[i]] = candidates[i];
    return { positions, phi, psi, records, kept, chance, candidates, confidence, quota, committed, tokens };
  }

  /* All that step `index` of answer k computes, from the answer as it stood before. As the draws are keyed, nothing before it has
     to run again. */
  function inspect(model, text, settings, index, k, response) {
    const config = { ...DEFAULTS, ...settings }, step = schedule(config.T, model.length)[index], gradientSteps = [];
    const row = rowState(config.seed, model.key(text), k);
    const found = denoise(model, model.encode(text), response, row, step, config, inner => gradientSteps.push(inner));
    return { ...step, before: response, ...found, gradientSteps };
  }

  /* Answers a prompt K times. Yields a record of every denoising step that runs, of all trajectories; returns the answers. */
  function* generate(model, text, settings) {
    const config = { ...DEFAULTS, ...settings }, { K, T, tau, order } = config;
    const prompt = model.encode(text), N = model.length, weigh = weightOf(config.weight);
    const rows = Array.from({ length: K }, (_, k) => rowState(config.seed, model.key(text), k));
    let responses = rows.map(() => new Array(N).fill(model.mask));
    for (const step of schedule(T, N)) {
      if (responses.every((response, k) => howMany(maskedOf(model, response), rows[k], step, order) === 0)) continue;
      const trajectories = responses.map((response, k) => {
        const { phi, positions, records, candidates, confidence, committed, tokens } = denoise(model, prompt, response, rows[k], step, config);
        return { positions, records, candidates, confidence, committed, tokens, weight: phi.map(p => weigh(p, tau)), entropy: phi.map(entropy) };
      });
      responses = trajectories.map(({ tokens }) => tokens);
      yield { step: step.index, t: step.t, trajectories };
    }
    return responses.map(response => {
      const words = model.words(response), parts = explainGold(model.toy, text, words);
      return {
        tokens: response, words, parts, reward: model.reward(prompt, response).value,
        gold: parts.reduce((sum, [, points]) => sum + points, 0),
      };
    });
  }

  return {
    rowState, uniform, nucleus, inverseCdf, tokenDistribution, entropy, gelu, geluSlope, load, schedule, inspect, generate, DEFAULTS,
  };
}
