/* SPDX-License-Identifier: MIT */
/*
 * The drawing of a plan: a rectangle a block, time from left to right, addresses upwards, the lower bound as a dashed line.
 * Larger blocks are darker. Each rectangle has a title, which viewers show under the pointer.
 */
#include "plan.h"

#include <inttypes.h>

#include "tool.h"

enum { WIDTH = 1200, HEIGHT = 700, LEFT = 90, TOP = 50, RIGHT = 30, BOTTOM = 60, TICKS = 8 };

struct frame {
    FILE *out;
    double x_of_time, y_of_unit; /* pixels */
    uint64_t height;             /* units */
};

static double x_of(const struct frame *frame, uint32_t time)
{
    return LEFT + time * frame->x_of_time;
}

static double y_of(const struct frame *frame, uint64_t unit)
{
    return HEIGHT - BOTTOM - (double)unit * frame->y_of_unit;
}

static void put_escaped(FILE *out, const char *text)
{
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '&':
            fputs("&amp;", out);
            break;
        default:
            if ((unsigned char)*text >= 0x20)
                fputc(*text, out);
        }
    }
}

static void draw_block(const struct frame *frame, const struct plan_blocks *blocks, uint32_t i)
{
    const struct plan_item *item = &blocks->items[i];
    char size[32];
    if (item->size == 0)
        return;
    /* from light to dark with the share of the height that it takes */
    double share = (double)item->size / (double)frame->height;
    int light = 85 - (int)(share > 0.5 ? 45 : share * 90);
    int hue = (int)((uint64_t)i * 137 % 360);
    fprintf(frame->out,
            "<rect x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\" fill=\"hsl(%d,55%%,%d%%)\" "
            "stroke=\"#333\" stroke-width=\"0.3\"><title>",
            x_of(frame, item->begin), y_of(frame, item->offset + item->size),
            (item->end - item->begin) * frame->x_of_time, (double)item->size * frame->y_of_unit,
            hue, light);
    if (blocks->names != NULL) {
        put_escaped(frame->out, blocks->names[i]);
    } else {
        fprintf(frame->out, "block %" PRIu32, i);
    }
    fprintf(frame->out,
            ": %s at offset %" PRIu64 ", time %" PRIu64 " to %" PRIu64 "</title></rect>\n",
            tool_format_bytes(blocks->sizes[i], size, sizeof size), item->offset * blocks->unit,
            blocks->times != NULL ? blocks->times[item->begin] : item->begin,
            blocks->times != NULL ? blocks->times[item->end] : item->end);
}

static void draw_axes(const struct frame *frame, const struct plan_blocks *blocks)
{
    char text[32];
    for (int tick = 0; tick <= TICKS; tick++) {
        uint64_t unit = frame->height * (uint64_t)tick / TICKS;
        fprintf(frame->out,
                "<line x1=\"%d\" x2=\"%d\" y1=\"%.2f\" y2=\"%.2f\" stroke=\"#ddd\"/>"
                "<text x=\"%d\" y=\"%.2f\" text-anchor=\"end\">%s</text>\n",
                LEFT, WIDTH - RIGHT, y_of(frame, unit), y_of(frame, unit), LEFT - 8,
                y_of(frame, unit) + 4, tool_format_bytes(unit * blocks->unit, text, sizeof text));
        uint32_t last = blocks->time_count > 0 ? blocks->time_count - 1 : 0;
        uint32_t time = (uint32_t)((uint64_t)last * (uint64_t)tick / TICKS);
        fprintf(frame->out, "<text x=\"%.2f\" y=\"%d\" text-anchor=\"middle\">%" PRIu64 "</text>\n",
                x_of(frame, time), HEIGHT - BOTTOM + 18,
                blocks->times != NULL ? blocks->times[time] : time);
    }
    fprintf(frame->out,
            "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">%s</text>\n"
            "<text transform=\"translate(18,%d) rotate(-90)\" text-anchor=\"middle\">address in "
            "the arena</text>\n",
            (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 18, blocks->is_csv ? "time" : "time (operations)",
            (TOP + HEIGHT - BOTTOM) / 2);
}

void plan_draw(FILE *out, const char *title, const struct plan_blocks *blocks,
               const struct plan_outcome *outcome)
{
    char peak[32], bound[32];
    uint32_t times = blocks->time_count > 1 ? blocks->time_count - 1 : 1;
    struct frame frame = {
        .out = out,
        .height = outcome->peak != 0 ? outcome->peak : 1,
    };
    frame.x_of_time = (double)(WIDTH - LEFT - RIGHT) / times;
    frame.y_of_unit = (double)(HEIGHT - TOP - BOTTOM) / (double)frame.height;
    fprintf(out,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
            "viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"12\">\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n<text x=\"%d\" y=\"28\" "
            "font-size=\"16\">",
            WIDTH, HEIGHT, WIDTH, HEIGHT, LEFT);
    put_escaped(out, title);
    fprintf(out, ": %" PRIu32 " blocks, peak %s, lower bound %s</text>\n", blocks->count,
            tool_format_bytes(outcome->peak * blocks->unit, peak, sizeof peak),
            tool_format_bytes(outcome->bound * blocks->unit, bound, sizeof bound));
    draw_axes(&frame, blocks);
    for (uint32_t i = 0; i < blocks->count; i++)
        draw_block(&frame, blocks, i);
    fprintf(out,
            "<line x1=\"%d\" x2=\"%d\" y1=\"%.2f\" y2=\"%.2f\" stroke=\"#c00\" "
            "stroke-dasharray=\"6 4\"/>\n</svg>\n",
            LEFT, WIDTH - RIGHT, y_of(&frame, outcome->bound), y_of(&frame, outcome->bound));
}
