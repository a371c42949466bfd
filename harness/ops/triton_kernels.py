"""Triton kernels: a convolution with stride 1 and the weight's gradient, both as matrix products.

Import this only where a kernel is launched: it imports Triton. Work is divided into tiles by `triton_tiles`.
Shapes: x (N, C, H, W), weight (C, KH, KW), out and grad (N, C, HO, WO), taps (C, COPIES, TAPS); all contiguous.
"""

# mypy: disable-error-code="untyped-decorator"

import triton
import triton.language as tl


@triton.jit
def lay_out(
    weight: tl.tensor,
    taps: tl.tensor,
    KH: tl.constexpr,
    KW: tl.constexpr,
    TOP: tl.constexpr,
    LEFT: tl.constexpr,
    TAPS: tl.constexpr,
    PITCH: tl.constexpr,
    COPIES: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Write each kernel with zeros around it, row by row, in copies of which each begins one tap later.

    Rows of a band begin at any tap; for each there is a copy in which it begins at an aligned address.
    """
    channel = tl.program_id(0)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    tap = place % TAPS + place // TAPS
    i = tap // PITCH - TOP
    j = tap % PITCH - LEFT
    is_tap = (i >= 0) & (i < KH) & (j >= 0) & (j < KW)
    value = tl.load(weight + channel * (KH * KW) + i * KW + j, mask=is_tap, other=0.0)
    tl.store(taps + channel * (COPIES * TAPS) + place, value, mask=place < COPIES * TAPS)


@triton.jit
def convolve(
    x: tl.tensor,
    taps: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    n_images: tl.tensor,
    channels: tl.tensor,
    H: tl.constexpr,
    W: tl.constexpr,
    HO: tl.constexpr,
    WO: tl.constexpr,
    KH: tl.constexpr,
    PH: tl.constexpr,
    PW: tl.constexpr,
    TAPS: tl.constexpr,
    PITCH: tl.constexpr,
    ORIGIN: tl.constexpr,
    COPIES: tl.constexpr,
    STRIP: tl.constexpr,
    REACH: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
    IMAGES: tl.constexpr,
    ALIGNED: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Compute BLOCKS blocks of ROWS x STRIP outputs of IMAGES images in a channel: [BM, BK] @ [BK, IMAGES * BLOCKS]."""
    strips: tl.constexpr = (WO + STRIP - 1) // STRIP
    groups: tl.constexpr = (HO + ROWS * BLOCKS - 1) // (ROWS * BLOCKS)
    pid = tl.program_id(0)
    w0 = pid % strips * STRIP
    first = pid // strips % groups * (ROWS * BLOCKS)
    tiles = tl.cdiv(n_images, IMAGES)
    tile = pid // (strips * groups) % tiles
    channel = pid // (strips * groups) // tiles

    m = tl.arange(0, BM)
    k = tl.arange(0, BK)
    column = tl.arange(0, IMAGES * BLOCKS)
    image = tile * IMAGES + column // BLOCKS
    h0 = first + column % BLOCKS * ROWS
    plane = image.to(tl.int64) * channels + channel
    is_image = image < n_images

    a0 = 0 if REACH == W else tl.maximum(w0 - PW, 0) // ALIGNED * ALIGNED
    begin = tl.maximum(-PH, -(first + (BLOCKS - 1) * ROWS))
    end = tl.minimum(KH - PH + ROWS - 1, H - first)
    tap = ORIGIN + (begin + PH - m // STRIP) * PITCH + PW + a0 - w0 - m % STRIP
    bands = taps + channel * (COPIES * TAPS) + tap % COPIES * TAPS + tap // COPIES * COPIES
    pixels = x + plane * (H * W) + h0 * W + begin * W + a0
    acc = tl.zeros((BM, IMAGES * BLOCKS), dtype=tl.float32)
    for done in range(0, (end - begin) * REACH, BK):
        row = (done + k) // REACH
        col = (done + k) % REACH
        a = tl.load(bands[:, None] + (row * PITCH + col)[None, :])
        h = h0[None, :] + (begin + row)[:, None]
        inside = (h >= 0) & (h < H) & is_image[None, :]
        if REACH == W:
            b = tl.load(pixels[None, :] + (done + k)[:, None], mask=inside, other=0.0)
        else:
            inside = inside & (a0 + col < W)[:, None]
            b = tl.load(pixels[None, :] + (row * W + col)[:, None], mask=inside, other=0.0)
        acc = tl.dot(a, b, acc, input_precision=PRECISION)

    if HAS_BIAS:
        acc += tl.load(bias + channel).to(tl.float32)
    h = h0[None, :] + (m // STRIP)[:, None]
    w = w0 + m % STRIP
    is_output = (m // STRIP < ROWS) & (w < WO)
    where = plane[None, :] * (HO * WO) + h * WO + w[:, None]
    tl.store(out + where, acc.to(out.dtype.element_ty), mask=is_output[:, None] & (h < HO) & is_image[None, :])


@triton.jit
def correlate(
    x: tl.tensor,
    grad: tl.tensor,
    out: tl.tensor,
    n_images: tl.tensor,
    channels: tl.tensor,
    H: tl.constexpr,
    W: tl.constexpr,
    HO: tl.constexpr,
    WO: tl.constexpr,
    KH: tl.constexpr,
    KW: tl.constexpr,
    PH: tl.constexpr,
    PW: tl.constexpr,
    STRIP: tl.constexpr,
    LEFT: tl.constexpr,
    REACH: tl.constexpr,
    ROWS: tl.constexpr,
    SPLITS: tl.constexpr,
    BM: tl.constexpr,
    BO: tl.constexpr,
    BR: tl.constexpr,
    QI: tl.constexpr,
    QJ: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Compute ROWS rows of a channel's gradient: pixel times gradient for all column pairs, summed along diagonals.

    out (SPLITS, C, KH, KW), float32. QI, QJ: the least powers of two that hold ROWS and KW.
    """
    strips: tl.constexpr = (WO + STRIP - 1) // STRIP
    parts: tl.constexpr = (KH + ROWS - 1) // ROWS
    pid = tl.program_id(0)
    i0 = pid % parts * ROWS
    channel = pid // parts % channels
    split = pid // parts // channels

    m = tl.arange(0, BM)
    o = tl.arange(0, BO)
    r = tl.arange(0, BR)
    first = tl.maximum(0, PH - i0 - (ROWS - 1))
    height = tl.maximum(0, tl.minimum(HO, H + PH - i0) - first)
    terms = strips * height * n_images
    share = tl.cdiv(tl.cdiv(terms, SPLITS), BR) * BR
    stop = tl.minimum(terms, (split + 1) * share)
    acc = tl.zeros((BM, BO), dtype=tl.float32)
    for done in range(split * share, stop, BR):
        term = done + r
        h = first + term % height
        image = term // height % n_images
        w0 = term // height // n_images * STRIP
        plane = image.to(tl.int64) * channels + channel
        is_term = term < stop
        row = h[None, :] + (i0 - PH + m // REACH)[:, None]
        col = (w0 - LEFT)[None, :] + (m % REACH)[:, None]
        inside = (row >= 0) & (row < H) & is_term[None, :] & (m // REACH < ROWS)[:, None]
        if REACH == W and strips == 1:
            pixels = plane * (H * W) + (h + i0 - PH) * W
            a = tl.load(x + pixels[None, :] + m[:, None], mask=inside, other=0.0)
        else:
            inside = inside & (col >= 0) & (col < W)
            a = tl.load(x + (plane * (H * W))[None, :] + row * W + col, mask=inside, other=0.0)
        w = w0[:, None] + o[None, :]
        is_output = is_term[:, None] & (o < STRIP)[None, :] & (w < WO)
        b = tl.load(grad + (plane * (HO * WO) + h * WO)[:, None] + w, mask=is_output, other=0.0)
        acc = tl.dot(a, b, acc, input_precision=PRECISION)

    q = tl.arange(0, QI * QJ)
    i = q // QJ
    j = q % QJ
    col = o[None, :] + (j - PW + LEFT)[:, None]
    is_pair = (col >= 0) & (col < REACH) & (i < ROWS)[:, None] & (o < STRIP)[None, :]
    pair = tl.where(is_pair, i[:, None] * REACH + col, 0)
    sums = tl.sum(tl.where(is_pair, tl.gather(acc, pair, axis=0), 0.0), axis=1)
    where = ((split * channels + channel) * KH + i0 + i) * KW + j
    tl.store(out + where, sums, mask=(i < ROWS) & (i0 + i < KH) & (j < KW))
