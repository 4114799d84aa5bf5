#include "http/h2.h"

#include "base/block_pool.h"

// Frames that nghttp2 does not know are handed on, to be counted (h2_event_of): it would drop them without a
// word to us.
static void take_unknown_frames(nghttp2_option *option)
{
    for (unsigned type = NGHTTP2_CONTINUATION + 1; type <= UINT8_MAX; type++)
        nghttp2_option_set_user_recv_extension_type(option, (uint8_t)type);
}

static void *take(size_t size, void *pool)
{
    return block_alloc(pool, size);
}

static void *take_zeroed(size_t count, size_t size, void *pool)
{
    return block_calloc(pool, count, size);
}

static void *take_more(void *p, size_t size, void *pool)
{
    return block_realloc(pool, p, size);
}

static void give_back(void *p, void *pool)
{
    block_free(pool, p);
}

nghttp2_mem h2_memory(struct block_pool *pool)
{
    return (nghttp2_mem){.mem_user_data = pool,
                         .malloc = take,
                         .free = give_back,
                         .calloc = take_zeroed,
                         .realloc = take_more};
}

nghttp2_option *h2_options(void)
{
    nghttp2_option *option;
    if (nghttp2_option_new(&option) != 0)
        return NULL;
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    nghttp2_option_set_max_outbound_ack(option, H2_OUT_ACKS);
    nghttp2_option_set_max_continuations(option, H2_CONTINUATIONS);
    nghttp2_option_set_max_deflate_dynamic_table_size(option, H2_TABLE_BYTES);
    nghttp2_option_set_max_send_header_block_length(option, H2_BLOCK_BYTES);
    nghttp2_option_set_max_reserved_remote_streams(option, 0); // pushed ones: there are none
    take_unknown_frames(option);
    return option;
}

int h2_submit_settings(nghttp2_session *session, bool client, uint32_t header_bytes)
{
    nghttp2_settings_entry entries[5] = {
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, client ? H2_FIRST_WINDOW : H2_STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, header_bytes},
    };
    size_t count = 2;
    if (client) {
        entries[count++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_ENABLE_PUSH, 0};
    } else {
        entries[count++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, H2_STREAMS};
        entries[count++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, 1};
        entries[count++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1};
    }
    int error = nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, entries, count);
    if (error)
        return error;
    return nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, H2_CONNECTION_WINDOW);
}
