/* SPDX-License-Identifier: MIT */
/*
 * An inference in plain C++ whose tensors are std::pmr::vectors: once with the memory of operator new, once with larder's. The
 * engine knows nothing of either; larder::memory_resource is all of the adapter.
 *
 * Five convolutions, each on the output of the one before, and a classifier that sees the mean of each channel of them all, so that
 * they all live to the end. The image's size changes from one inference to the next. Prints the page faults of an inference, and fails unless all results are the same to the bit.
 */
#include <larder/larder.hpp>

#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory_resource>
#include <vector>

namespace
{

constexpr int inferences = 12;
constexpr int warm = 6;
constexpr std::size_t layers = 5;
constexpr std::size_t channels = 8;
constexpr std::size_t classes = 10;
constexpr std::size_t sides[] = {112, 80, 96};

using values = std::pmr::vector<float>;

/* Rows, columns, channels; the last vary fastest. */
struct tensor {
    std::size_t side;
    std::size_t depth;
    values data;

    tensor(std::size_t side_, std::size_t depth_, std::pmr::memory_resource *memory)
        : side(side_), depth(depth_), data(side_ * side_ * depth_, memory)
    {
    }
};

float weight(std::size_t layer, std::size_t index)
{
    return std::sin(static_cast<float>(index * (layer + 3))) * 0.1F;
}

values make_weights(std::size_t layer, std::size_t count)
{
    values all(count);
    for (std::size_t i = 0; i < count; i++) {
        all[i] = weight(layer, i);
    }
    return all;
}

/* 3 by 3, without a border, and nothing below zero. */
tensor convolve(const tensor &input, const values &weights, std::pmr::memory_resource *memory)
{
    tensor output(input.side - 2, channels, memory);
    for (std::size_t y = 0; y < output.side; y++) {
        for (std::size_t x = 0; x < output.side; x++) {
            float *pixel = &output.data[(y * output.side + x) * channels];
            for (std::size_t row = 0; row < 3; row++) {
                /* three neighbours with all their channels lie side by side */
                const float *from = &input.data[((y + row) * input.side + x) * input.depth];
                for (std::size_t i = 0; i < 3 * input.depth; i++) {
                    const float *by = &weights[(row * 3 * input.depth + i) * channels];
                    for (std::size_t c = 0; c < channels; c++) {
                        pixel[c] += from[i] * by[c];
                    }
                }
            }
            std::transform(pixel, pixel + channels, pixel,
                           [](float value) { return std::max(value, 0.0F); });
        }
    }
    return output;
}

/* The mean of each channel, behind those that are there already. */
void add_means(const tensor &of, values &means)
{
    std::size_t first = means.size();
    means.resize(first + channels);
    for (std::size_t i = 0; i < of.data.size(); i++) {
        means[first + i % channels] += of.data[i] / static_cast<float>(of.side * of.side);
    }
}

values classify(const values &means, const values &weights, std::pmr::memory_resource *memory)
{
    values scores(classes, memory);
    for (std::size_t i = 0; i < weights.size(); i++) {
        scores[i / means.size()] += means[i % means.size()] * weights[i];
    }
    return scores;
}

struct network {
    std::vector<values> weights;

    network()
    {
        for (std::size_t layer = 0; layer < layers; layer++) {
            weights.push_back(make_weights(layer, 9 * channels * (layer == 0 ? 3 : channels)));
        }
        weights.push_back(make_weights(layers, classes * layers * channels));
    }

    values infer(std::size_t side, std::pmr::memory_resource *memory) const
    {
        tensor image(side, 3, memory);
        for (std::size_t i = 0; i < image.data.size(); i++) {
            image.data[i] = static_cast<float>(i * 2654435761U % 1000) * 0.001F;
        }
        std::pmr::vector<tensor> all(memory);
        values means(memory);
        all.reserve(layers);
        for (std::size_t layer = 0; layer < layers; layer++) {
            all.push_back(convolve(layer == 0 ? image : all.back(), weights[layer], memory));
            add_means(all.back(), means);
        }
        return classify(means, weights[layers], memory);
    }
};

struct report {
    std::vector<std::vector<float>> results;
    double faults_per_inference = 0;
};

long faults()
{
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt;
}

report run(const network &model, std::pmr::memory_resource *memory)
{
    report told;
    long before = 0;
    for (int i = 0; i < inferences; i++) {
        if (i == warm) {
            before = faults();
        }
        values scores = model.infer(sides[i % 3], memory);
        told.results.emplace_back(scores.begin(), scores.end());
    }
    told.faults_per_inference = static_cast<double>(faults() - before) / (inferences - warm);
    return told;
}

} // namespace

int main()
{
    network model;
    larder::instance engine("pmr");
    larder::memory_resource memory(engine);

    report without = run(model, std::pmr::new_delete_resource());
    report with = run(model, &memory);
    if (with.results != without.results || with.results[0] == with.results[1]) {
        std::fprintf(stderr, "example: the results differ, or nothing was computed\n");
        return 1;
    }
    if (engine.stats().allocations < inferences * layers || engine.stats().live_blocks != 0) {
        std::fprintf(stderr, "example: the tensors did not come from larder, or are still there\n");
        return 1;
    }
    std::printf("%d inferences, results equal, %llu blocks from larder\n", inferences,
                static_cast<unsigned long long>(engine.stats().allocations));
    std::printf("faults per inference: %.0f without larder, %.0f with it\n",
                without.faults_per_inference, with.faults_per_inference);
    return 0;
}
