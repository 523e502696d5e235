//! Loops compiled for the vector instructions of the CPU that they run on.

/// Defines a function that runs the widest copy of its body that this CPU supports.
///
/// On x86-64 the body is compiled three times: for AVX-512, for AVX2 with FMA, and for any CPU. Elsewhere there is
/// one copy: NEON, with its fused multiply-add, belongs to every aarch64.
///
/// The body is pasted into every copy, and closures in it have the copy's instructions. Functions that it
/// calls have them only if they are inlined, hence `#[inline(always)]` on them.
macro_rules! vectorised {
    (
        $(#[$meta:meta])*
        fn $name:ident<$t:ident: $bound:ident>($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)?
        $body:block
    ) => {
        $(#[$meta])*
        fn $name<$t: $bound>($($arg: $type),*) $(-> $out)? {
            fn portable<$t: $bound>($($arg: $type),*) $(-> $out)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma")]
                fn avx512<$t: $bound>($($arg: $type),*) $(-> $out)? $body

                #[target_feature(enable = "avx2,fma")]
                fn avx2<$t: $bound>($($arg: $type),*) $(-> $out)? $body

                if $crate::ops::loops::vectorised::has_avx512() {
                    // SAFETY: this CPU has the instructions that the copy is compiled for.
                    return unsafe { avx512($($arg),*) };
                }
                if $crate::ops::loops::vectorised::has_avx2() {
                    // SAFETY: as above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            portable($($arg),*)
        }
    };
}
pub(in crate::ops) use vectorised;

#[cfg(target_arch = "x86_64")]
pub(in crate::ops) fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

#[cfg(target_arch = "x86_64")]
pub(in crate::ops) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}
