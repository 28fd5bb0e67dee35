/* SPDX-License-Identifier: MIT */
/*
 * The same inferences by XNNPACK with its own allocator and with larder: four convolutions and a classifier on images whose size
 * changes, so that each inference has a runtime, and with it a workspace, of its own. Input and output come from the allocator
 * too, as an application's would.
 *
 * XNNPACK can be initialised once in a process, hence a child process for each. Prints the page faults of an inference, and
 * fails unless all results are the same to the bit.
 */
#include <larder_xnnpack.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { INFERENCES = 24, WARM = 8, LAYERS = 4, CHANNELS = 16, CLASSES = 10, INPUT = 0, OUTPUT = 1 };

static const size_t sizes[] = {224, 160, 192};

struct report {
    float results[INFERENCES][CLASSES];
    double faults_per_inference;
    uint64_t blocks; /* that came from larder */
};

/* Weights that anyone can compute again. */
static float weights[LAYERS + 1][CHANNELS * 3 * 3 * CHANNELS];
static float biases[CHANNELS];

static void fill_weights(void)
{
    for (size_t layer = 0; layer <= LAYERS; layer++) {
        for (size_t i = 0; i < sizeof weights[0] / sizeof weights[0][0]; i++)
            weights[layer][i] = sinf((float)(i * (layer + 3))) * 0.1F;
    }
    for (size_t i = 0; i < CHANNELS; i++)
        biases[i] = 0.01F * (float)i;
}

static void must(enum xnn_status status, const char *what)
{
    if (status != xnn_status_success) {
        fprintf(stderr, "example: %s failed with status %d of XNNPACK\n", what, (int)status);
        exit(1);
    }
}

static uint32_t add_tensor(xnn_subgraph_t graph, size_t rank, const size_t *shape, const void *data,
                           uint32_t external, uint32_t flags)
{
    uint32_t id;
    must(xnn_define_tensor_value(graph, xnn_datatype_fp32, rank, shape, data, external, flags, &id),
         "a tensor");
    return id;
}

/* Each layer halves the image and has all channels but the first layer's three as its input. */
static uint32_t add_convolution(xnn_subgraph_t graph, size_t layer, uint32_t input, size_t *side)
{
    size_t channels = layer == 0 ? 3 : CHANNELS;
    size_t filter_shape[] = {CHANNELS, 3, 3, channels}, bias_shape[] = {CHANNELS};
    size_t after = layer == 0 ? *side : *side / 2;
    size_t output_shape[] = {1, after, after, CHANNELS};
    uint32_t stride = layer == 0 ? 1 : 2;
    uint32_t filter = add_tensor(graph, 4, filter_shape, weights[layer], XNN_INVALID_VALUE_ID, 0);
    uint32_t bias = add_tensor(graph, 1, bias_shape, biases, XNN_INVALID_VALUE_ID, 0);
    uint32_t output = add_tensor(graph, 4, output_shape, NULL, XNN_INVALID_VALUE_ID, 0);
    must(xnn_define_convolution_2d(graph, 0, 0, 0, 0, 3, 3, stride, stride, 1, 1, 1, channels,
                                   CHANNELS, 0.0F, INFINITY, input, filter, bias, output,
                                   XNN_FLAG_TENSORFLOW_SAME_PADDING),
         "a convolution");
    *side = after;
    return output;
}

static xnn_subgraph_t make_graph(size_t side)
{
    xnn_subgraph_t graph;
    must(xnn_create_subgraph(2, 0, &graph), "a graph");
    size_t input_shape[] = {1, side, side, 3}, pooled_shape[] = {1, CHANNELS};
    size_t output_shape[] = {1, CLASSES}, filter_shape[] = {CLASSES, CHANNELS};
    size_t bias_shape[] = {CLASSES};
    uint32_t value = add_tensor(graph, 4, input_shape, NULL, INPUT, XNN_VALUE_FLAG_EXTERNAL_INPUT);
    uint32_t output =
        add_tensor(graph, 2, output_shape, NULL, OUTPUT, XNN_VALUE_FLAG_EXTERNAL_OUTPUT);
    for (size_t layer = 0; layer < LAYERS; layer++)
        value = add_convolution(graph, layer, value, &side);
    uint32_t pooled = add_tensor(graph, 2, pooled_shape, NULL, XNN_INVALID_VALUE_ID, 0);
    must(xnn_define_global_average_pooling_2d(graph, -INFINITY, INFINITY, value, pooled, 0),
         "a pool");
    uint32_t filter = add_tensor(graph, 2, filter_shape, weights[LAYERS], XNN_INVALID_VALUE_ID, 0);
    uint32_t bias = add_tensor(graph, 1, bias_shape, biases, XNN_INVALID_VALUE_ID, 0);
    must(xnn_define_fully_connected(graph, -INFINITY, INFINITY, pooled, filter, bias, output, 0),
         "the classifier");
    return graph;
}

/* One inference from the image's memory to the result. `larder` NULL: tensors from malloc. */
static void infer(larder_t *larder, xnn_subgraph_t graph, size_t side, float *result)
{
    size_t pixels = side * side * 3, bytes = pixels * sizeof(float);
    float *image = larder != NULL ? larder_alloc(larder, bytes) : malloc(bytes + XNN_EXTRA_BYTES);
    if (image == NULL) {
        perror("example: no memory for an image");
        exit(1);
    }
    for (size_t i = 0; i < pixels; i++)
        image[i] = (float)(i * 2654435761U % 1000) * 0.001F;
    xnn_runtime_t runtime;
    must(xnn_create_runtime(graph, &runtime), "a runtime");
    const struct xnn_external_value values[] = {{INPUT, image}, {OUTPUT, result}};
    must(xnn_setup_runtime(runtime, 2, values), "the set-up");
    must(xnn_invoke_runtime(runtime), "the inference");
    must(xnn_delete_runtime(runtime), "the runtime's end");
    if (larder != NULL)
        larder_free(larder, image);
    else
        free(image);
}

static long faults(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt;
}

static larder_t *make_instance(void)
{
    larder_config_t config;
    larder_config_init(&config);
    config.padding_after = XNN_EXTRA_BYTES;
    larder_t *larder = larder_create("xnnpack", &config);
    if (larder == NULL) {
        perror("example: larder_create");
        exit(1);
    }
    return larder;
}

static void run(larder_t *larder, struct report *report)
{
    enum { SIZES = sizeof sizes / sizeof sizes[0] };
    struct xnn_allocator allocator = larder_xnnpack_allocator(larder);
    xnn_subgraph_t graphs[SIZES];
    long before = 0;
    must(xnn_initialize(larder != NULL ? &allocator : NULL), "the initialisation");
    for (size_t i = 0; i < SIZES; i++)
        graphs[i] = make_graph(sizes[i]);
    for (size_t i = 0; i < INFERENCES; i++) {
        if (i == WARM)
            before = faults();
        infer(larder, graphs[i % SIZES], sizes[i % SIZES], report->results[i]);
    }
    report->faults_per_inference = (double)(faults() - before) / (INFERENCES - WARM);
    larder_stats_t stats = {.struct_size = sizeof stats};
    if (larder != NULL && larder_stats_get(larder, &stats) == 0)
        report->blocks = stats.allocations;
}

/* Runs the inferences in a child process, which sends its report through a pipe. */
static struct report run_in_child(int with_larder)
{
    struct report report;
    int ends[2];
    memset(&report, 0, sizeof report);
    if (pipe(ends) != 0) {
        perror("example: pipe");
        exit(1);
    }
    pid_t child = fork();
    if (child == 0) {
        run(with_larder ? make_instance() : NULL, &report);
        _exit(write(ends[1], &report, sizeof report) == sizeof report ? 0 : 1);
    }
    close(ends[1]);
    int status = 1;
    ssize_t got = read(ends[0], &report, sizeof report);
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0 || got != sizeof report) {
        fprintf(stderr, "example: the child process %s larder failed\n",
                with_larder ? "with" : "without");
        exit(1);
    }
    close(ends[0]);
    return report;
}

int main(void)
{
    fill_weights();
    struct report without = run_in_child(0), with = run_in_child(1);
    if (memcmp(without.results, with.results, sizeof with.results) != 0) {
        fprintf(stderr, "example: the results differ\n");
        return 1;
    }
    if (with.results[0][0] == with.results[1][0] || with.blocks < INFERENCES) {
        fprintf(stderr, "example: nothing was computed, or not with larder\n");
        return 1;
    }
    printf("%d inferences, results equal, %llu blocks from larder\n", INFERENCES,
           (unsigned long long)with.blocks);
    printf("faults per inference: %.0f without larder, %.0f with it\n",
           without.faults_per_inference, with.faults_per_inference);
    return 0;
}
