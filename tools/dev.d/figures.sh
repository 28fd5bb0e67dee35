# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2154  # $root and the functions are tools/dev's
#
# Part of tools/dev: `figures` measures anew what the documents say, each table with one word, and puts it where it belongs.
# What was measured stays in build/figures/; the engines' runs are kept in the repository, too.

figure_names='replays pairs ort_fixed ort_varying torch_fixed torch_varying bounds model'
figure_traces='mobilenet_v2 shufflenet_v2_varying encoder_varying mobilenet_v2_4threads decoder_kv_cache ort_mobilenet_v2 ort_speech_stream'
engine_cases='ort_fixed ort_varying torch_fixed torch_varying'

figures_usage() {
    cat <<'END'
usage: tools/dev figures NAME...

Measures anew and rewrites, on an idle machine:
  replays        the README's table of replays (4 minutes)
  pairs          its table of pairs between threads (a minute)
  engines        its table and chart of engines, bench/engines/figures.json and README.md: all of
  ort_fixed, ort_varying, torch_fixed, torch_varying
                 a case of them alone (2 to 8 minutes each); the others stay as they were measured last
  bounds, model  bench/BOUNDS.md: check_bounds (6 minutes) and cost_model
  all            everything
END
}

# A path of bench/traces for each of $figure_traces.
trace_paths() {
    local name path
    for name in $figure_traces; do
        for path in "$root/bench/traces/$name".txt "$root/bench/traces/$name".txt.*; do
            [ ! -e "$path" ] || echo "$path"
        done
    done
}

figures_replays() {
    local traces
    mapfile -t traces < <(trace_paths)
    "$root/build/tools/larder" pick "${traces[@]}" --gaps 0 --time-limit 230 --json "$figures/replays.json" &&
        "$root/bench/table" "$figures/replays.json" --update "$root/README.md"
}

figures_pairs() {
    "$root/bench/interleave" --out "$figures/pairs.json" --repetitions 7 \
        --backends larder,system,mimalloc,jemalloc,tcmalloc,tbbmalloc,scudo,c10-design,none \
        --benchmark_filter='^pair_threads/.*/(4KiB|1.5MiB)/.*threads:(1|2)$' &&
        "$root/bench/pairs_table" "$figures/pairs.json" | "$root/bench/put" "$root/README.md" pairs
}

# One case, measured and put in the place of its former runs among those that are kept; then all that is made of them.
# A run that failed (1) does not lose the others: the table says which, and so does compare.
figures_engine() {
    local kept=$root/bench/engines/figures.json before=$figures/before status=0
    touch "$before"
    "$root/bench/engines/compare" --cases "$1" --keep "$kept" || status=$?
    [ $status -le 1 ] && [ "$kept" -nt "$before" ] || return 1
    "$root/bench/engines/summary" "$kept" --update "$root/README.md" &&
        "$root/bench/engines/chart" "$kept" --output "$root/bench/engines/chart.svg" &&
        { "$root/bench/engines/compare" --print "$kept" || [ $? = 1 ]; } | "$root/bench/put" "$root/bench/engines/README.md" runs
}

# Beside the usual build one without statistics and one that does not detect double frees, to measure what they cost.
figures_bounds() {
    local without
    for without in uncounted unchecked; do
        configure "build-$without" "-Dc_args=-DLARDER_${without^^}" -Dtests=disabled -Dadapters=disabled --wrap-mode=nodownload &&
            compile "build-$without" "$(nproc)" bench/larder-bench || return 1
    done
    "$root/bench/check_bounds" --uncounted "$root/build-uncounted/bench/larder-bench" \
        --unchecked "$root/build-unchecked/bench/larder-bench" --json "$figures/bounds.json" >"$figures/bounds.txt" &&
        { echo '```' && cat "$figures/bounds.txt" && echo '```'; } | "$root/bench/put" "$root/bench/BOUNDS.md" bounds
}

figures_model() {
    "$root/bench/cost_model" >"$figures/model.txt" &&
        { echo '```' && cat "$figures/model.txt" && echo '```'; } | "$root/bench/put" "$root/bench/BOUNDS.md" model
}

command_figures() {
    local name names=() figures=$root/build/figures
    [ $# -gt 0 ] || usage_error "figures: which? (tools/dev figures --help)"
    for name in "$@"; do
        case " $figure_names " in
        *" $name "*) names+=("$name") ;;
        *)
            case $name in
            all) read -ra names <<<"$figure_names" ;;
            engines) read -ra names <<<"${names[*]} $engine_cases" ;;
            -h | --help)
                figures_usage
                return
                ;;
            *) usage_error "figures: no figures are called '$name' (tools/dev figures --help)" ;;
            esac
            ;;
        esac
    done
    case " ${names[*]} " in
    *" ort_"* | *" torch_"*) command_engines --install-only ;;
    *)
        prepare always
        build
        ;;
    esac
    mkdir -p "$figures"
    for name in "${names[@]}"; do
        say "measuring $name"
        case $name in
        ort_* | torch_*) figures_engine "$name" ;;
        *) "figures_$name" ;;
        esac || die "$name could not be measured; the documents are as they were"
    done
}
