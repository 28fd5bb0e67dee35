#!/usr/bin/env node
// SPDX-License-Identifier: MIT
//
// Runs one workload's inferences under ONNX Runtime and prints what they cost, as a line of JSON:
// ms of each cycle, minor page faults and memory while they ran, and a checksum of the outputs.
//
// Tensors for inputs and outputs are made once and used again, as a camera's buffer is: what is between
// them is the allocator's. The process must otherwise be as quiet as possible, so the measured loop
// writes to arrays made before it. What JavaScript's heap still faults in is part of the figure, under
// every allocator alike.
'use strict';

const crypto = require('crypto');
const fs = require('fs');
const path = require('path');
const { parseArgs } = require('util');

const usage = `usage: run_onnx.js [OPTIONS] WORKLOAD.json

  --modules DIR       where node_modules is (default: this directory)
  --cycles N          measured cycles of inputs (default 50)
  --warmup N          cycles before them (default 10)
  --threads N         threads within an operator (default 1)
  --parallel N        run operators that do not depend on each other in N threads
  --arena             leave ONNX Runtime's own arena on (default: off)
  --pattern           let it lay the tensors of a known shape out in one block (default: off, a block
                      for each tensor)
  --addon FILE        larder-node.node of the build, for the next two
  --mallopt P=V,...   settings for the allocator
  --record N          record N inferences after the warm-up instead of measuring;
                      the process must run under the recorder, with LARDER_RECORD_WAIT=1
  --per-mark N        inferences of a recording's phase (default 1)
`;

function fail(status, message) {
    process.stderr.write(`run_onnx.js: ${message}\n`);
    process.exit(status);
}

function readOptions() {
    const text = { type: 'string' };
    const switches = { type: 'boolean' };
    try {
        const { values, positionals } = parseArgs({
            allowPositionals: true,
            options: {
                modules: text, cycles: text, warmup: text, threads: text, parallel: text,
                arena: switches, pattern: switches, addon: text, mallopt: text, record: text, 'per-mark': text,
                help: switches,
            },
        });
        if (values.help) {
            process.stdout.write(usage);
            process.exit(0);
        }
        if (positionals.length !== 1) {
            throw new Error('one WORKLOAD.json is needed');
        }
        return { ...values, workload: positionals[0] };
    } catch (error) {
        return fail(2, `${error.message}; see --help`);
    }
}

const options = readOptions();

function count(name, otherwise, least) {
    const value = Number(options[name] ?? otherwise);
    if (!Number.isInteger(value) || value < least) {
        fail(2, `--${name} wants a whole number, at least ${least}`);
    }
    return value;
}

function loadOnnxRuntime() {
    const base = path.resolve(options.modules ?? __dirname, 'anchor.js');
    try {
        return require('module').createRequire(base)('onnxruntime-node');
    } catch (error) {
        return fail(1, `onnxruntime-node cannot be loaded from ${path.dirname(base)}: ` +
            `run npm ci --ignore-scripts there (${error.message.split('\n')[0]})`);
    }
}

// The same values in every process: the upper bits of a linear congruential sequence.
function fill(data, seed) {
    let state = seed >>> 0;
    for (let i = 0; i < data.length; i++) {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        data[i] = (state >>> 8) / 16777216;
    }
    return data;
}

function makeTensor(ort, shape, seed) {
    const size = shape.reduce((product, side) => product * side, 1);
    return new ort.Tensor('float32', fill(new Float32Array(size), seed), shape);
}

function makeCycle(ort, workload) {
    return workload.cycle.map((shapes, number) => Object.fromEntries(
        Object.entries(shapes).map(([name, shape], i) => [name, makeTensor(ort, shape, 1 + 97 * number + i)])));
}

// "VmHWM" and the like of this process, in KiB.
function memoryFigure(name) {
    const found = fs.readFileSync('/proc/self/status', 'utf8').match(new RegExp(`^${name}:\\s*(\\d+)`, 'm'));
    return found ? Number(found[1]) : null;
}

// From here on VmHWM counts from what is resident now; older kernels leave it as it was.
function forgetPeak() {
    try {
        fs.writeFileSync('/proc/self/clear_refs', '5');
    } catch {
        // Without it the peak is that of the process.
    }
}

class Runner {
    constructor(session, cycle, carry) {
        this.session = session;
        this.cycle = cycle;
        this.carry = Object.entries(carry);
        this.results = new Array(cycle.length);
    }

    // The first cycle makes the outputs' tensors, the later ones write to them.
    async inference(number) {
        const place = number % this.cycle.length;
        const feeds = this.cycle[place];
        const results = await this.session.run(feeds, this.results[place] ?? {});
        this.results[place] = results;
        for (const [output, input] of this.carry) {
            feeds[input].data.set(results[output].data);
        }
        return results;
    }

    async cycles(number) {
        for (let i = 0; i < number * this.cycle.length; i++) {
            await this.inference(i);
        }
    }

    async checksum() {
        const hash = crypto.createHash('sha256');
        for (let i = 0; i < this.cycle.length; i++) {
            const results = await this.inference(i);
            for (const name of Object.keys(results).sort()) {
                const { buffer, byteOffset, byteLength } = results[name].data;
                hash.update(new Uint8Array(buffer, byteOffset, byteLength));
            }
        }
        return hash.digest('hex').slice(0, 16);
    }
}

async function measure(runner, cycles) {
    const times = new Float64Array(cycles);
    forgetPeak();
    const before = process.resourceUsage();
    for (let i = 0; i < cycles; i++) {
        const begin = performance.now();
        await runner.cycles(1);
        times[i] = (performance.now() - begin) / runner.cycle.length;
    }
    const after = process.resourceUsage();
    return {
        ms: Array.from(times, (time) => Number(time.toFixed(4))),
        faults_per_inference: (after.minorPageFault - before.minorPageFault) / (cycles * runner.cycle.length),
        peak_rss_kib: memoryFigure('VmHWM'),
        rss_kib: memoryFigure('VmRSS'),
        process_peak_rss_kib: after.maxRSS,
    };
}

async function record(runner, addon, inferences, perMark) {
    addon.start();
    for (let i = 0; i < inferences; i++) {
        if (i % perMark === 0) {
            addon.mark(`inference ${i / perMark}`);
        }
        await runner.inference(i);
    }
    // What finalizers free would be missing otherwise; they run after the collection.
    addon.mark('collection');
    global.gc?.();
    await new Promise(setImmediate);
    addon.mark('end');
    addon.stop();
}

async function main() {
    const cycles = count('cycles', 50, 1);
    const warmup = count('warmup', 10, 1);
    const threads = count('threads', 1, 1);
    const parallel = count('parallel', 1, 1);
    const inferences = count('record', 0, 0);
    const perMark = count('per-mark', 1, 1);
    const addon = options.addon ? require(path.resolve(options.addon)) : undefined;
    if (!addon && (options.mallopt || inferences > 0)) {
        fail(2, '--mallopt and --record need --addon FILE');
    }
    for (const setting of (options.mallopt ?? '').split(',').filter(Boolean)) {
        addon.mallopt(...setting.split('=').map(Number));
    }
    const workload = JSON.parse(fs.readFileSync(options.workload, 'utf8'));
    const ort = loadOnnxRuntime();
    const session = await ort.InferenceSession.create(
        path.join(path.dirname(options.workload), workload.model),
        {
            enableCpuMemArena: Boolean(options.arena),
            enableMemPattern: Boolean(options.pattern),
            intraOpNumThreads: threads,
            interOpNumThreads: parallel,
            executionMode: parallel > 1 ? 'parallel' : 'sequential',
        });
    const runner = new Runner(session, makeCycle(ort, workload), workload.carry);
    const first = await runner.checksum();
    await runner.cycles(warmup);
    if (inferences > 0) {
        return record(runner, addon, inferences, perMark);
    }
    const figures = await measure(runner, cycles);
    const result = {
        engine: `ONNX Runtime ${ort.env.versions.node ?? ort.env.versions.common}`,
        checksum: `${first} ${await runner.checksum()}`,
        ...figures,
    };
    process.stdout.write(`${JSON.stringify(result)}\n`);
}

main().catch((error) => fail(1, error.message));
